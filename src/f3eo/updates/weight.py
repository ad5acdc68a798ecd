"""How much of the structure direction an update takes: λ as a ratio, a cap, or a number."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import exp
from typing import Any

from torch import Tensor

from f3eo.ends import Ends
from f3eo.shown import Shown

Schedule = Callable[[int], float]

FAR = 20.0
"""A mean loss that no classifier starts from: chance among e^20, half a billion, classes."""

FAINT, PATIENCE = 0.01, 100
"""Part of the structure term that nothing is left below, and steps before that is told."""


class Weight(Shown, ABC):
    """λ from the lengths of the loss gradient g and of the structure direction d.

    Args:
        value: the weight's own constant, at least 0.
        schedule: step (0, 1, …) → factor on `value`, such as `Warmup(500)`; default constant 1.

    Raises:
        TypeError, ValueError: a value that is no number, negative or not finite; no schedule.
    """

    distance: bool = False
    """Whether λ is a distance in the space of weights: h is then the gradient of a mean norm, for
    every power of the estimator, and its λ does not have the scale of the loss."""

    def __init__(self, value: float, schedule: Schedule | None = None) -> None:
        if not 0 <= _number(self, "value", value) < float("inf"):
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
            loss: mean loss of its batch, for weights that heed it; default 0, as if all were
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

    def see(self, found: Ends, losses: Tensor) -> None:
        """Learn what the losses are, for weights that heed it.

        Args:
            found: at the end of their graph.
            losses: (B,).
        """

    @abstractmethod
    def factor(self, value: float, gradient: float, direction: float) -> float:
        """λ from the constant at this step, ‖g‖ and ‖d‖; where d is 0 it does not matter."""


class Ratio(Weight):
    """λ = κ‖g‖/‖d‖: the structure term is κ times as long as the gradient, whatever their scales.

    Args:
        value: κ; 0.1 to 0.5 is a good range.
        schedule: see `Weight`.
    """

    def factor(self, value: float, gradient: float, direction: float) -> float:
        """κ‖g‖/‖d‖."""
        return value * gradient / direction if direction > 0 else 0.0


class Cap(Weight):
    """λ = min(value, limit·‖g‖/‖d‖): a fixed distance whose term is never longer than limit·‖g‖.

    d is of the gradient of (E‖∇ℓ_i‖^p)^(1/p), p the estimator's power.

    Args:
        value: λ, a distance as SAM's ρ.
        limit: largest length of the structure term in units of ‖g‖; default 1.
        schedule: see `Weight`.
    """

    distance = True

    def __init__(self, value: float, limit: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(value, schedule)
        if not _number(self, "limit", limit) > 0:
            raise ValueError(f"Cap needs limit > 0, received {limit}")
        self.limit = limit

    def factor(self, value: float, gradient: float, direction: float) -> float:
        """min(λ, limit·‖g‖/‖d‖)."""
        return min(value, self.limit * gradient / direction) if direction > 0 else 0.0


class Fitted(Cap):
    """λ = min(value·e^(−L), limit·‖g‖/‖d‖): a `Cap` that grows as the loss L falls.

    With cross-entropies e^(−L) is the probability that the model gives to the labels, in the
    geometric mean over the batch: what is not fitted yet cannot be overfitted, and has no use for
    the structure term. Where L is negative, as that of densities may be, e^(−L) counts as 1. Losses
    in other units than nats have no such meaning: use `Cap`. It warns, once, of losses that are
    known to be no cross-entropies (squared errors, margins, class weights, focal ones), of negative
    ones that are no densities, of such that leave less than 1 % for 100 steps where nothing is
    known of them, and of any above 20.

    Args:
        value: λ where everything is fitted.
        limit: see `Cap`.
        schedule: see `Weight`.
    """

    def __init__(self, value: float, limit: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(value, limit, schedule)
        self._told = False
        self._found: Ends | None = None
        self._faint = 0

    def see(self, found: Ends, losses: Tensor) -> None:
        """See `Weight.see`; warns of losses that are not in nats."""
        self._found = found
        if found.other is not None:
            self._tell(found.other, float(losses.detach().mean()))

    def at(self, step: int, loss: float = 0.0) -> float:
        """The constant times min(1, e^(−L))."""
        if loss > FAR and not self._told:
            self._told = True
            warnings.warn(
                f"{self!r} takes a loss in nats, as cross-entropy is, and leaves nothing of the "
                f"structure term at the loss received, {loss:.3g}: if training has not diverged, "
                f"use Cap({self.value})",
                stacklevel=2,
            )
        if loss and self._found is not None:
            self._follow(loss, self._found)
        return super().at(step, loss) * exp(-max(loss, 0.0))

    def _follow(self, loss: float, found: Ends) -> None:
        """Warn of losses whose course is not that of a mean in nats."""
        if loss < 0 and not found.density:
            self._tell("negative losses, which no log-probabilities are", loss)
        known = found.nats or found.density
        self._faint = self._faint + 1 if exp(-max(loss, 0.0)) < FAINT and not known else 0
        if self._faint >= PATIENCE:
            self._tell(f"losses that left less than {FAINT:.0%} for {PATIENCE} steps", loss)

    def _tell(self, what: str, loss: float) -> None:
        if self._told or not self.value:
            return
        self._told = True
        warnings.warn(
            f"{self!r} takes a loss in nats, as cross-entropy is, and received {what}: its factor "
            f"e^(-L) is {exp(-max(loss, 0.0)):.2g} at the mean {loss:.3g}, and depends on their "
            f"units; use weight=Cap({self.value})",
            stacklevel=2,
        )


class Fixed(Weight):
    """λ = value: with `Coupled()` the update descends L + (λ/p) E‖∇ℓ_i‖^p, p the power.

    A good value depends on model, loss and data.

    Args:
        value: λ.
        schedule: see `Weight`.
    """

    def factor(self, value: float, gradient: float, direction: float) -> float:
        """λ."""
        return value


class Warmup(Shown):
    """Factor that grows linearly from 1/steps to 1 over `steps` steps and stays there.

    Args:
        steps: length of the warm-up in optimizer steps, at least 1.
        delay: steps before it, during which the factor is 0; default 0.

    Raises:
        TypeError, ValueError: no integers, steps below 1 or a negative delay.
    """

    def __init__(self, steps: int, delay: int = 0) -> None:
        _number(self, "steps", steps, int)
        _number(self, "delay", delay, int)
        if steps < 1 or delay < 0:
            raise ValueError(
                f"Warmup needs steps >= 1 and delay >= 0, received {steps} and {delay}"
            )
        self.steps = steps
        self.delay = delay

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return min(1.0, max(0.0, (step - self.delay + 1) / self.steps))


def _number(owner: Any, name: str, value: Any, kind: type = float) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        word = "an integer" if kind is int else "a number"
        raise TypeError(f"{type(owner).__name__} needs {word} as {name}, received {value!r}")
    return value
