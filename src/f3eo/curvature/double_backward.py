"""Exact Hessian-vector products by differentiating the gradient (Pearlmutter 1994)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.graph import contents, refuse_once_differentiable
from f3eo.curvature.engine import Engine, Objective, Product
from f3eo.tensors import Vector, filled, plus, scaled


class DoubleBackward(Engine):
    """H v = ∇⟨∇s, v⟩ for s = Σ w_k f_k, exact to rounding; keeps the graph of the gradient."""

    differentiable = True
    forwards = 6.0

    def product(
        self,
        objectives: Sequence[Objective],
        weights: Sequence[float],
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
        chosen = [p for p, s in zip(parameters, structured, strict=True) if s]
        vector = weighted_sum(gradients, weights, structured, chosen)
        # A vector that depends on no parameter (a loss linear in them) has no graph: H v = 0.
        graphed = [v for v in vector if v.requires_grad]
        refuse_once_differentiable(values, graphed)
        product = (
            torch.autograd.grad(graphed, chosen, [v.detach() for v in graphed], allow_unused=True)
            if graphed
            else [None] * len(chosen)
        )
        return Product(
            values=[v.detach() for v in values],
            gradients=[[None if g is None else g.detach() for g in gs] for gs in gradients],
            vector=[v.detach() for v in vector],
            product=filled(product, chosen),
            unit=unit,
        )


def weighted_sum(
    gradients: Sequence[Sequence[Tensor | None]],
    weights: Sequence[float],
    structured: Sequence[bool],
    chosen: Vector,
) -> list[Tensor]:
    """v = Σ w_k ∇f_k on the structured parameters."""
    vector: list[Tensor] = []
    for weight, columns in zip(weights, gradients, strict=True):
        own = filled([g for g, s in zip(columns, structured, strict=True) if s], list(chosen))
        vector = (
            plus(vector, own, weight) if vector else own if weight == 1 else scaled(own, weight)
        )
    return vector
