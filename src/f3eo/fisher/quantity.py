"""The quantity whose gradient is h: a mean of powers of per-sample gradient norms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.fisher.emphasis import Emphasis


@dataclass(frozen=True)
class Quantity:
    """(1/p) Σ_i ω_i a_i ‖D ∇ℓ_i‖^p.

    Args:
        power: p.
        emphasis: gives a_i.
        hold_residuals: whether ∂ℓ_i/∂f_i is held.
    """

    power: float
    emphasis: Emphasis
    hold_residuals: bool

    def factors(self, squared: Tensor, losses: Tensor) -> Tensor | None:
        """a_i ‖D ∇ℓ_i‖^(p−2), the factor on H_i D² ∇ℓ_i in h.

        Args:
            squared: ‖D ∇ℓ_i‖², (B,), detached.
            losses: ℓ_i, (B,), detached.

        Returns:
            (B,), 0 where the norm is 0; None where all are 1.
        """
        factors = self.emphasis.of(losses)
        if self.power == 2:
            return factors
        powers = torch.where(squared > 0, squared, torch.inf) ** (self.power / 2 - 1)
        return powers if factors is None else powers * factors
