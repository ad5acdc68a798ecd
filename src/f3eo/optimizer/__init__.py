"""The optimizer: it measures a batch, combines the gradients, and lets the base step."""

from f3eo.optimizer.f3eo import F3EO

__all__ = ["F3EO"]
