"""Streams of tasks: what is forgotten, what is shared, and what a new task costs after others."""
