"""The Jacobian of a pass, J = ∂f/∂θ, as exact matrix-vector products."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.curvature.vectors import flatten, unflatten
from f3eo.tensors import filled


class Jacobian:
    """J of outputs f that have a graph, which this object holds.

    The product J v = ∇_u⟨Jᵀu, v⟩ takes two backward passes, which every operation with a second
    derivative has.

    Args:
        outputs: f, of any shape, from a pass evaluated with `differentiable=True`.
        parameters: θ.
    """

    def __init__(self, outputs: Tensor, parameters: Sequence[Tensor]) -> None:
        self._outputs = outputs
        self._parameters = parameters
        # Jᵀu is linear in u, so the value of u does not matter.
        self._u = torch.zeros_like(outputs, requires_grad=True)
        self._pullback = torch.autograd.grad(
            outputs, parameters, self._u, create_graph=True, allow_unused=True
        )

    def reaches(self, block: Sequence[int]) -> list[int]:
        """Places in a block, positions in the parameters, of those that f depends on."""
        return [k for k, i in enumerate(block) if self._pullback[i] is not None]

    def product(self, v: Tensor, block: Sequence[int]) -> Tensor:
        """J v, in the shape of f, of which some entry must depend on the block.

        Args:
            v: flat, the entries of the block's parameters.
            block: positions in the parameters.
        """
        used = self.reaches(block)
        vector = unflatten(v, [self._parameters[i] for i in block])
        (product,) = torch.autograd.grad(
            [self._pullback[block[k]] for k in used],
            self._u,
            [vector[k] for k in used],
            retain_graph=True,
        )
        return product

    def transposed(self, cotangent: Tensor, block: Sequence[int]) -> Tensor:
        """Jᵀc, flat, the entries of the block's parameters.

        Args:
            cotangent: c, in the shape of f.
            block: positions in the parameters.
        """
        own = [self._parameters[i] for i in block]
        rows = torch.autograd.grad(
            self._outputs, own, cotangent, retain_graph=True, allow_unused=True
        )
        return flatten(filled(rows, own))
