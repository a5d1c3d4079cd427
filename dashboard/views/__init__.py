"""The pages: each loads, shapes and draws; the state that matters is in the URL."""
