"""Several processes: one step of all of them, with the sums over all their samples."""

from f3eo.processes.all_reduce import AllReduce, digest

__all__ = ["AllReduce", "digest"]
