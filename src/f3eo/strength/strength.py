"""The interface of every strength: how much of the structure direction an update takes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from f3eo.closure.loss_kind import LossKind
from f3eo.shown import Shown

Schedule = Callable[[int], float]


class Strength(Shown, ABC):
    """λ from the lengths of the loss gradient g and of the structure direction d.

    Args:
        value: its constant, at least 0.
        schedule: step (0, 1, …) → factor on `value`, such as `Warmup(500)`; default constant 1.

    Raises:
        TypeError, ValueError: a value that is no number, negative or not finite; no schedule.
    """

    distance: bool = False
    """Whether λ is a distance in the space of weights: h is then the gradient of a mean norm, for
    every power of the estimator, and its λ does not have the scale of the loss."""

    def __init__(self, value: float, schedule: Schedule | None = None) -> None:
        if not 0 <= number(self, "value", value) < float("inf"):
            raise ValueError(f"{type(self).__name__} needs a finite value >= 0, received {value}")
        if schedule is not None and not callable(schedule):
            raise TypeError(
                f"the schedule of {type(self).__name__} must be a function of the step, received "
                f"{schedule!r}; for a linear start use Warmup(steps)"
            )
        self.value = value
        self.schedule = schedule

    def at(self, step: int, loss: float = 0.0) -> float:
        """The constant at a step.

        Args:
            step: 0, 1, …
            loss: mean loss of its batch, for strengths that heed it; default 0, as if all were
                fitted.

        Raises:
            ValueError: a factor of the schedule that is negative or not finite.
        """
        factor = self.schedule(step) if self.schedule is not None else 1.0
        if not 0 <= factor < float("inf"):
            raise ValueError(
                f"the schedule of {type(self).__name__}({self.value}) must give finite factors "
                f">= 0, gave at step {step}: {factor}"
            )
        return self.value * factor

    def see(self, found: LossKind, losses: Tensor) -> None:
        """Learn what the losses are, for strengths that heed it.

        Args:
            found: at the end of their graph.
            losses: (B,).
        """

    @abstractmethod
    def factor(self, value: float, gradient: float, direction: float) -> float:
        """λ from the constant at this step, ‖g‖ and ‖d‖; where d is 0 it does not matter."""


def number(owner: Any, name: str, value: Any, kind: type = float) -> Any:
    """The value, refused with a TypeError where it is no number of this kind."""
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        word = "an integer" if kind is int else "a number"
        raise TypeError(f"{type(owner).__name__} needs {word} as {name}, received {value!r}")
    return value
