"""Quadratic model of the loss around the current parameters."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Quadratic:
    """m(d) = L + ⟨g, d⟩ + ½ ⟨d, B d⟩ on a block of P parameter entries.

    Args:
        parameters: positions of the block's parameters in the optimizer's list, in the order in
            which their entries stand in d.
        gradient: g, shape (P,).
        product: v ↦ B v, both of shape (P,), B symmetric.

    >>> import torch
    >>> model = Quadratic([0], torch.tensor([-1.0]), lambda v: 2 * v)
    >>> model.reduction(torch.tensor([0.5]))
    tensor(0.2500)
    """

    parameters: list[int]
    gradient: Tensor
    product: Callable[[Tensor], Tensor]

    def damped(self, damping: float) -> Callable[[Tensor], Tensor]:
        """v ↦ (B + λ I) v, with λ = `damping`."""
        return lambda v: self.product(v) + damping * v

    def reduction(self, step: Tensor) -> Tensor:
        """m(0) − m(d), the predicted reduction of the loss; a scalar."""
        return -(self.gradient @ step) - 0.5 * (step @ self.product(step))
