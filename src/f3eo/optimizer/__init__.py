"""The optimizer: what is measured becomes an update, and the base makes the step."""

from f3eo.optimizer.f3eo import F3EO

__all__ = ["F3EO"]
