"""The quadratic model of the loss that a second-order step minimises."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Quadratic:
    """m(d) = L + ⟨g, d⟩ + ½ ⟨d, B d⟩ for a row of parameters.

    Args:
        places: which of the optimizer's parameters the row holds, in order.
        gradient: g, shape (P,).
        product: v ↦ B v, both of shape (P,).
    """

    places: list[int]
    gradient: Tensor
    product: Callable[[Tensor], Tensor]

    def damped(self, damping: float) -> Callable[[Tensor], Tensor]:
        """v ↦ (B + λ I) v."""
        return lambda v: self.product(v) + damping * v

    def reduction(self, step: Tensor) -> Tensor:
        """m(0) − m(d), what the model promises; a scalar."""
        return -(self.gradient @ step) - 0.5 * (step @ self.product(step))
