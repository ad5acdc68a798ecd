"""The optimizer: it measures a batch, combines the gradients, and lets the base step."""

from f3eo.optimizer.f3eo import F3EO
from f3eo.optimizer.step_record import Observer, StepRecord

__all__ = ["F3EO", "Observer", "StepRecord"]
