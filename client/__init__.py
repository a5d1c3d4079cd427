"""The Python SDK and the command line, over the wire."""
