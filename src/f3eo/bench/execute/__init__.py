"""Runs of a study: in a pool of processes, stored, resumed."""
