"""The Hessian of the mean loss, H = ∇²L, as exact products from one forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.output import Output
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import joined, split
from f3eo.tensors import filled


def hessian(output: Output, parameters: Sequence[Tensor]) -> Quadratic:
    """The Taylor model of the mean loss: g = ∇L, B v = H v = ∇⟨∇L, v⟩.

    Args:
        output: of a closure, its graph differentiable twice.
        parameters: P entries in all.

    Returns:
        A model that holds the graph.

    Raises:
        ValueError: losses that depend on none of the parameters.

    Source: Pearlmutter 1994.
    """
    parameters = list(parameters)
    found = torch.autograd.grad(output.mean(), parameters, create_graph=True, allow_unused=True)
    check_reached(found, parameters)
    # What the loss is linear in, or does not use, has no graph: its rows of H are zero.
    graphed = [i for i, g in enumerate(found) if g is not None and g.requires_grad]

    def product(v: Tensor) -> Tensor:
        if not graphed:
            return torch.zeros_like(v)
        vector = split(v, parameters)
        rows = torch.autograd.grad(
            [found[i] for i in graphed],
            parameters,
            [vector[i] for i in graphed],
            retain_graph=True,
            allow_unused=True,
        )
        return joined(filled(rows, parameters))

    return Quadratic(list(range(len(parameters))), joined(filled(found, parameters)), product)
