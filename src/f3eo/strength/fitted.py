"""A distance that grows as the loss falls."""

import warnings
from math import exp

from torch import Tensor

from f3eo.closure.loss_kind import LossKind
from f3eo.strength.cap import Cap
from f3eo.strength.strength import Schedule

FAINT, PATIENCE = 0.01, 100
"""Part of the structure term that nothing is left below, and steps before that is told."""

FAR = 20.0
"""A mean loss that no classifier starts from: chance among e^20, half a billion, classes."""


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
        schedule: see `Strength`.
    """

    def __init__(self, value: float, limit: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(value, limit, schedule)
        self._told = False
        self._found: LossKind | None = None
        self._faint = 0

    def see(self, found: LossKind, losses: Tensor) -> None:
        """See `Strength.see`; warns of losses that are not in nats."""
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

    def _follow(self, loss: float, found: LossKind) -> None:
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
            f"units; use strength=Cap({self.value})",
            stacklevel=2,
        )
