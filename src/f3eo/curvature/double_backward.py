"""Exact Hessian-vector products by differentiating the gradient (Pearlmutter 1994)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.graph import contents, refuse_once_differentiable
from f3eo.curvature.engine import Engine, Objective, Product
from f3eo.tensors import Vector, filled, plus, scaled


class DoubleBackward(Engine):
    """H v = ∇⟨∇f, v⟩ for f = Σ c_k f_k, exact to rounding; keeps the graph of the gradient."""

    differentiable = True
    forwards = 6.0

    def product(
        self,
        objectives: Sequence[Objective],
        coefficients: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
    ) -> Product:
        """See `Engine.product`."""
        values = [value for objective in objectives for value in objective(differentiable=True)]
        unit = max(contents(v).unit for v in values)
        gradients = [
            torch.autograd.grad(v, parameters, create_graph=True, allow_unused=True) for v in values
        ]
        check_reached([g for gs in gradients for g in gs], parameters)
        selected = [p for p, s in zip(parameters, structured, strict=True) if s]
        vector = linear_combination(gradients, coefficients, structured, selected)
        # A gradient that depends on no parameter (f is linear in them) has no graph: H v = 0.
        graphed = [v for v in vector if v.requires_grad]
        refuse_once_differentiable(values, graphed)
        product = (
            torch.autograd.grad(graphed, selected, [v.detach() for v in graphed], allow_unused=True)
            if graphed
            else [None] * len(selected)
        )
        return Product(
            values=[v.detach() for v in values],
            gradients=[[None if g is None else g.detach() for g in gs] for gs in gradients],
            vector=[v.detach() for v in vector],
            product=filled(product, selected),
            unit=unit,
        )


def linear_combination(
    gradients: Sequence[Sequence[Tensor | None]],
    coefficients: Sequence[float],
    structured: Sequence[bool],
    selected: Vector,
) -> list[Tensor]:
    """v = Σ c_k ∇f_k on the structured parameters.

    Args:
        gradients: ∇f_k for every k, a tensor per parameter.
        coefficients: c_k.
        structured: for each parameter, whether it is part of v.
        selected: the structured parameters.
    """
    combination: list[Tensor] = []
    for c, gradient in zip(coefficients, gradients, strict=True):
        own = filled([g for g, s in zip(gradient, structured, strict=True) if s], list(selected))
        if combination:
            combination = plus(combination, own, c)
        elif c == 1:
            combination = own
        else:
            combination = scaled(own, c)
    return combination
