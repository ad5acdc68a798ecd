"""Execution of runs: worker processes, stored rows, resuming, and the terminal display."""
