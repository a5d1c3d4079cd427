"""Turns a job into a process and its events into rows."""
