"""What a sample counts in the means of a batch.

With weights w_it of the positions t of sample i:

    ℓ_i = Σ_t w_it ℓ_it / Σ_t w_it      w_i = Σ_t w_it      ω_i = w_i / Σ_j w_j
    L = Σ_i ω_i ℓ_i      Tr F = Σ_i ω_i ‖∇ℓ_i‖²

Without weights every ω_i is 1/B.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Weighted:
    """Per-sample losses with weights, for closures: L = Σ w ℓ / Σ w over all samples and positions.

    Parts of a batch (`fraction`, `chunk`, `accumulate`) are joined by their weights, so that they
    give the mean over the whole: over kept tokens with weights 1 and 0, or with the weights of
    classes or of importance sampling.

    Args:
        losses: (B,) or (B, …), as with `reduction="none"`.
        weights: ≥ 0, constants. In the shape of the losses; or (B,), the w_i of the samples, whose
            further dimensions are then averaged.

    Raises:
        TypeError: no tensors, losses that are not floating point, complex weights.
        ValueError: shapes that do not fit, weights with a gradient. Weights that are negative or
            not finite are refused when the closure has returned.
    """

    def __init__(self, losses: Tensor, weights: Tensor) -> None:
        for name, value in (("losses", losses), ("weights", weights)):
            if not isinstance(value, Tensor):
                raise TypeError(f"Weighted needs {name} as a tensor, received {_kind(value)}")
        if not losses.is_floating_point() or weights.is_complex():
            raise TypeError(
                f"Weighted needs floating point losses and real weights, received {losses.dtype} "
                f"and {weights.dtype}"
            )
        if losses.ndim == 0 or weights.shape not in (losses.shape, losses.shape[:1]):
            raise ValueError(
                f"Weighted needs losses (B, …) and weights of the same shape or (B,), received "
                f'{tuple(losses.shape)} and {tuple(weights.shape)}; losses come from "none" as '
                f"reduction, and weights that broadcast are written out by expand_as(losses)"
            )
        if weights.requires_grad:
            raise ValueError(
                "Weighted needs weights that are constants, received some with a gradient: use "
                "weights.detach(), or multiply the losses by what is to be differentiated"
            )
        self.losses = losses
        self.weights = weights

    def check(self) -> None:
        """Refuse weights that are negative or not finite.

        Raises:
            ValueError: with the first of them.
        """
        wrong = ~((self.weights >= 0) & (self.weights < torch.inf))
        if bool(wrong.any()):
            place = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"Weighted needs finite weights >= 0, received {float(self.weights[tuple(place)])} "
                f"at {tuple(place)}; what is not to count has weight 0"
            )

    def per_sample(self) -> tuple[Tensor, Tensor]:
        """ℓ_i and w_i, shape (B,) each; ℓ_i is 0 where w_i is."""
        dtype = torch.promote_types(self.losses.dtype, torch.float32)
        weights = self.weights.to(self.losses.device, dtype)
        if self.losses.ndim == 1:
            return self.losses, weights
        if weights.ndim == 1:
            return self.losses.flatten(1).mean(1), weights
        totals = weights.flatten(1).sum(1)
        inner = weights.flatten(1) / torch.where(totals > 0, totals, 1).unsqueeze(1)
        return (self.losses.flatten(1) * inner.to(self.losses)).sum(1), totals


@dataclass(frozen=True)
class Shares:
    """ω_i, and means taken with it.

    Args:
        count: B.
        weights: w_i, (B,), in float32 or wider; None where every sample counts the same.
    """

    count: int
    weights: Tensor | None = None

    @property
    def total(self) -> Tensor | int:
        """Σ w_i; B without weights."""
        return self.count if self.weights is None else self.weights.sum()

    def like(self, losses: Tensor, factor: Tensor | None = None) -> Tensor:
        """ω_i times a factor in the dtype of the losses, (B,); all 0 where nothing counts."""
        if self.weights is None:
            if factor is None:
                return torch.full_like(losses, 1 / max(self.count, 1))
            return (factor / self.count).to(losses).expand_as(losses)
        shares = self.weights / self._divisor()
        return (shares if factor is None else shares * factor).to(losses)

    def mean(self, losses: Tensor) -> Tensor:
        """L = Σ ω_i ℓ_i, a scalar; NaN where nothing counts."""
        if self.weights is None:
            return losses.mean()
        return (self.weights * losses).sum() / self.weights.sum()

    def average(self, values: Tensor) -> Tensor:
        """Σ ω_i x_i, a scalar; 0 where nothing counts."""
        if self.weights is None:
            return values.sum() / max(self.count, 1)
        return (self.weights * values).sum() / self._divisor()

    def divided(self, values: Tensor) -> Tensor:
        """x_i / ω_i, (B,), or a scalar without weights; 0 where ω_i is."""
        if self.weights is None:
            return values * self.count
        counts = self.weights > 0
        return values * (counts * self._divisor() / torch.where(counts, self.weights, 1)).to(values)

    def own(self, squared: Tensor) -> Tensor:
        """‖∇ℓ_i‖² of ‖ω_i ∇ℓ_i‖², (B,); 0 where ω_i is."""
        if self.weights is None:
            return squared * self.count**2
        return self.divided(self.divided(squared))

    def trace(self, squared: Tensor) -> Tensor:
        """Σ ω_i ‖∇ℓ_i‖² of ‖ω_i ∇ℓ_i‖², a scalar."""
        return squared.sum() * self.count if self.weights is None else self.divided(squared).sum()

    def joined(self, losses: Tensor) -> Tensor:
        """B ω_i ℓ_i, (B,), whose plain mean is L."""
        return losses if self.weights is None else losses * self.like(losses) * self.count

    def _divisor(self) -> Tensor:
        assert self.weights is not None
        total = self.weights.sum()
        return torch.where(total > 0, total, 1)


def _kind(value: Any) -> str:
    return type(value).__name__
