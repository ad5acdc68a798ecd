"""Emphasis: how much each sample counts in the structure term, a_i in E[a_i ‖D ∇ℓ_i‖^p].

a_i is held constant where the mean is differentiated. ∇L and the reported trace do not see it.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from f3eo.shown import Shown


class Emphasis(Shown, ABC):
    """a_i from the losses of a batch."""

    @abstractmethod
    def of(self, losses: Tensor) -> Tensor | None:
        """a_i >= 0, (B,); None where all are 1.

        Args:
            losses: ℓ_i, (B,), detached.
        """


class Uniform(Emphasis):
    """a_i = 1: every sample counts alike."""

    def of(self, losses: Tensor) -> Tensor | None:
        """See `Emphasis.of`."""
        return None


class ByFit(Emphasis):
    """a_i = e^(−ℓ_i), the probability that the model gives to the label: fitted samples count.

    Losses below 0 count as 0.
    """

    def of(self, losses: Tensor) -> Tensor | None:
        """See `Emphasis.of`."""
        return (-losses.clamp(min=0)).exp()


class ByMisfit(Emphasis):
    """a_i = 1 − e^(−ℓ_i): samples that are not fitted count. Losses below 0 count as 0."""

    def of(self, losses: Tensor) -> Tensor | None:
        """See `Emphasis.of`."""
        return -(-losses.clamp(min=0)).expm1()
