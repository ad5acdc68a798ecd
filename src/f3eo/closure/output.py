"""Output of a closure: losses of the samples, and means over them.

With weights w_it of the positions t of sample i

    ℓ_i = Σ_t w_it ℓ_it / w_i      w_i = Σ_t w_it      ω_i = w_i / Σ_j w_j
    L = Σ_i ω_i ℓ_i      Tr F = Σ_i ω_i ‖∇ℓ_i‖²

and without weights ω_i = 1/B.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.likelihood import Likelihood


@dataclass(frozen=True)
class Shares:
    """The shares ω_i = w_i / Σ_j w_j of the samples in every mean, and means taken with them.

    Args:
        count: B.
        weights: w_i, shape (B,), in float32 or wider; None where every ω_i is 1/B.
    """

    count: int
    weights: Tensor | None = None

    @property
    def total(self) -> Tensor | int:
        """Σ w_i; B without weights."""
        return self.count if self.weights is None else self.weights.sum()

    def as_tensor(self, losses: Tensor, factor: Tensor | float | None = None) -> Tensor:
        """ω_i, or ω_i · factor, in the dtype of the losses; shape (B,), 0 if all w_i are 0."""
        if self.weights is None:
            if factor is None:
                return torch.full_like(losses, 1 / max(self.count, 1))
            if not isinstance(factor, Tensor):
                return torch.full_like(losses, factor / max(self.count, 1))
            return (factor / self.count).to(losses).expand_as(losses)
        shares = self.weights / self._divisor()
        return (shares if factor is None else shares * factor).to(losses)

    def mean(self, losses: Tensor) -> Tensor:
        """L = Σ ω_i ℓ_i, a scalar; NaN if all w_i are 0."""
        if self.weights is None:
            return losses.mean()
        return (self.weights * losses).sum() / self.weights.sum()

    def mean_or_zero(self, values: Tensor) -> Tensor:
        """Σ ω_i x_i, a scalar; 0 if all w_i are 0."""
        if self.weights is None:
            return values.sum() / max(self.count, 1)
        return (self.weights * values).sum() / self._divisor()

    def means_or_zero(self, *values: Tensor) -> list[Tensor]:
        """`mean_or_zero` of each."""
        return [self.mean_or_zero(x) for x in values]

    def rescale(self, losses: Tensor) -> Tensor:
        """B ω_i ℓ_i, shape (B,): losses whose plain mean is L."""
        if self.weights is None:
            return losses
        return losses * self.as_tensor(losses) * self.count

    def divide(self, values: Tensor) -> Tensor:
        """x_i / ω_i, shape (B,), 0 where ω_i is 0; without weights B x, of the shape of x."""
        if self.weights is None:
            return values * self.count
        positive = self.weights > 0
        inverse = positive * self._divisor() / torch.where(positive, self.weights, 1)
        return values * inverse.to(values)

    def squared_norms(self, scaled: Tensor) -> Tensor:
        """‖∇ℓ_i‖² from ‖ω_i ∇ℓ_i‖², shape (B,); 0 where ω_i is 0."""
        return scaled * self.count**2 if self.weights is None else self.divide(self.divide(scaled))

    def trace(self, scaled: Tensor) -> Tensor:
        """Tr F = Σ ω_i ‖∇ℓ_i‖² from ‖ω_i ∇ℓ_i‖², a scalar."""
        return scaled.sum() * self.count if self.weights is None else self.divide(scaled).sum()

    def _divisor(self) -> Tensor:
        """Σ w_i, or 1 where that is 0."""
        assert self.weights is not None
        total = self.weights.sum()
        return torch.where(total > 0, total, 1)


@dataclass(frozen=True)
class Output:
    """What a closure returned.

    Args:
        losses: ℓ_i, shape (B,).
        likelihood: the likelihood that the losses are from; None if the closure returned losses.
        shares: ω_i.
    """

    losses: Tensor
    likelihood: Likelihood | None
    shares: Shares

    def mean(self) -> Tensor:
        """L, a scalar."""
        return self.shares.mean(self.losses)
