"""λ as a distance that grows as the loss falls."""

import warnings
from math import exp

from torch import Tensor

from f3eo.closure.loss_kind import LossKind
from f3eo.strength.cap import Cap
from f3eo.strength.strength import Observation, Schedule

FAINT, PATIENCE = 0.01, 100
"""e^(−L) below which a structure term has no effect, and steps below it before a warning."""

FAR = 20.0
"""A mean loss above that of any classifier at chance: e^20 is half a billion classes."""


class Fitted(Cap):
    """λ = min(value·e^(−L), limit·‖g‖/‖d‖): a `Cap` that grows as the mean loss L falls.

    For cross-entropies e^(−L) is the geometric mean, over the batch, of the probabilities that the
    model gives to the labels. Labels that are not fitted yet cannot be overfitted, and need no
    structure term. Where L is negative, as for densities, e^(−L) counts as 1.

    Losses in other units than nats have no such meaning: use `Cap`. `Fitted` warns once where it
    meets them: squared errors, margins, class weights or focal losses by their graph; negative
    losses that are no densities; unknown losses for which e^(−L) stays below 1 % for 100 steps; and
    any mean loss above 20.

    Args:
        value: λ where everything is fitted.
        limit: see `Cap`.
        schedule: see `Strength`.
    """

    def __init__(self, value: float, limit: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(value, limit, schedule)
        self._warned = False
        self._kind: LossKind | None = None
        self._faint_steps = 0

    def see(self, found: LossKind, losses: Tensor) -> None:
        """See `Strength.see`; warns of losses that are not in nats."""
        self._kind = found
        if found.other is not None:
            self._warn(found.other, float(losses.detach().mean()))

    def at(self, observed: Observation) -> float:
        """The scheduled value times min(1, e^(−L)), in the scale of a mean norm."""
        loss = observed.loss
        if loss > FAR and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self!r} expects a loss in nats, such as cross-entropy, and takes nothing of the "
                f"structure term at the received loss of {loss:.3g}: if training has not diverged, "
                f"use Cap({self.value})",
                stacklevel=2,
            )
        if self._kind is not None:
            self._check_course(loss, self._kind)
        return self.scheduled(observed.step) * exp(-max(loss, 0.0)) * observed.norm_scale()

    def _check_course(self, loss: float, kind: LossKind) -> None:
        """Warn of losses that are negative or large in a way that no losses in nats are."""
        if loss < 0 and not kind.density:
            self._warn("negative losses, which no log-probabilities are", loss)
        nats = kind.nats or kind.density
        self._faint_steps = (
            self._faint_steps + 1 if exp(-max(loss, 0.0)) < FAINT and not nats else 0
        )
        if self._faint_steps >= PATIENCE:
            self._warn(f"losses that left less than {FAINT:.0%} for {PATIENCE} steps", loss)

    def _warn(self, what: str, loss: float) -> None:
        if self._warned or not self.value:
            return
        self._warned = True
        warnings.warn(
            f"{self!r} expects a loss in nats, such as cross-entropy, and received {what}: its "
            f"factor e^(-L) is {exp(-max(loss, 0.0)):.2g} at the mean {loss:.3g}, and depends on "
            f"their units; use strength=Cap({self.value})",
            stacklevel=2,
        )
