"""The page of a stream study: tables, matrices, curves, tests, claims and goals, from its rows."""

from f3eo.bench.continual.report.load import is_stream_study, load
from f3eo.bench.continual.report.write import write

__all__ = ["is_stream_study", "load", "write"]
