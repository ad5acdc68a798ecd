"""The interface of every strength: λ, how much of the structure direction an update takes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from f3eo.closure.loss_kind import LossKind
from f3eo.shown import Shown

Schedule = Callable[[int], float]
"""step (0, 1, …) → factor on a strength's value, finite and at least 0."""


@dataclass(frozen=True)
class Observation:
    """What is known of a step before its update.

    Args:
        step: number of the step, from 0.
        loss: mean loss L of its batch; negated where every group maximizes.
        trace: Tr F as last measured, a scalar tensor; None before the first measurement.
        power: p of the estimator, whose h is (1/p)∇E‖∇ℓ_i‖^p.
        parameters: P, the number of entries of the parameters that Tr F is over.
        measured: whether the trace is of this step; otherwise of an earlier one.
    """

    step: int
    loss: float
    trace: Tensor | None = None
    power: float = 1.0
    parameters: int = 0
    measured: bool = True

    def norm_scale(self) -> float:
        """Factor that turns h into the gradient of a mean norm, (E‖∇ℓ_i‖^p)^(1/p).

        It is (E‖∇ℓ_i‖^p)^(1/p − 1): 1 at p = 1 and (Tr F)^(−1/2) at p = 2. Between them
        (Tr F)^(p/2) stands for E‖∇ℓ_i‖^p. It is 0 where Tr F is 0.
        """
        if self.power == 1 or self.trace is None:
            return 1.0
        trace = float(self.trace)
        return trace ** ((1 - self.power) / 2) if trace > 0 else 0.0


class Strength(Shown, ABC):
    """λ from the lengths of the loss gradient g and of the structure direction d.

    A step asks twice: `at` gives the constant of this step from what is known before its update,
    `multiplier` gives λ from that constant, ‖g‖ and ‖d‖.

    Args:
        value: the constant without a schedule, at least 0.
        schedule: step → factor on `value`, such as `Warmup(500)`; default constant 1.

    Raises:
        TypeError, ValueError: a value that is no number, negative or not finite; no schedule.
    """

    rest: int = 0
    """Largest number of steps that it lets pass without a measurement, beyond those of `every`."""

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

    def scheduled(self, step: int) -> float:
        """value · schedule(step). Where it is 0, the step measures no structure term.

        Args:
            step: number of the step, from 0.

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

    def at(self, observed: Observation) -> float:
        """The constant of one step; `scheduled(step)` unless a strength says otherwise.

        Args:
            observed: what is known before the update.

        Raises:
            ValueError: see `scheduled`.
        """
        return self.scheduled(observed.step)

    def see(self, found: LossKind, losses: Tensor) -> None:
        """Learn what kind of losses the closure returns; ignored by default.

        Args:
            found: read from the graph of the losses.
            losses: (B,).
        """

    def counters(self) -> Mapping[str, float]:
        """What is saved with the optimizer, by name: the same names at every step; default none."""
        return {}

    def load(self, counters: Mapping[str, float]) -> None:
        """Continue from saved counters; ignored by default.

        Args:
            counters: as `counters` returned them; none means a new start.
        """

    @abstractmethod
    def multiplier(self, constant: float, gradient: float, direction: float) -> float:
        """λ; any number where d is 0.

        Args:
            constant: from `at`.
            gradient: ‖g‖, in the metric of the base.
            direction: ‖d‖, in the same metric.
        """


def number(owner: Any, name: str, value: Any, kind: type = float) -> Any:
    """The value itself, if it is an integer or of the given kind.

    Raises:
        TypeError: anything else, with the received value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        word = "an integer" if kind is int else "a number"
        raise TypeError(f"{type(owner).__name__} needs {word} as {name}, received {value!r}")
    return value
