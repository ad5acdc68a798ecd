"""The Hessian of the mean loss, H = ∇²L, as exact matrix-vector products."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.output import Output
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import flatten, unflatten
from f3eo.tensors import filled


def hessian(output: Output, parameters: Sequence[Tensor]) -> Quadratic:
    """Second-order Taylor model of the mean loss: g = ∇L and B v = H v = ∇⟨∇L, v⟩.

    Args:
        output: output of a closure, evaluated with `differentiable=True`.
        parameters: the trained parameters, P entries in total.

    Returns:
        The model; it holds the graph.

    Raises:
        ValueError: the losses depend on none of the parameters.

    Source: Pearlmutter 1994.

    >>> from f3eo.closure.evaluate import evaluate
    >>> from f3eo.closure.problem import Problem
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> problem = Problem(lambda: w[0] ** 2 * w[1], (), [w])
    >>> model = hessian(evaluate(problem, per_sample=False, differentiable=True), [w])
    >>> model.gradient
    tensor([4., 1.])
    >>> model.product(torch.tensor([1.0, 0.0]))
    tensor([4., 2.])
    """
    parameters = list(parameters)
    gradient = torch.autograd.grad(output.mean(), parameters, create_graph=True, allow_unused=True)
    check_reached(gradient, parameters)
    # Rows of H are zero for parameters on which the loss depends linearly or not at all.
    curved = [i for i, g in enumerate(gradient) if g is not None and g.requires_grad]

    def product(v: Tensor) -> Tensor:
        if not curved:
            return torch.zeros_like(v)
        vector = unflatten(v, parameters)
        rows = torch.autograd.grad(
            [gradient[i] for i in curved],
            parameters,
            [vector[i] for i in curved],
            retain_graph=True,
            allow_unused=True,
        )
        return flatten(filled(rows, parameters))

    return Quadratic(list(range(len(parameters))), flatten(filled(gradient, parameters)), product)
