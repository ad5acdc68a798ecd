"""Gradients in the parameters of a problem, the structured ones and all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from f3eo.closure.graph import refuse_once_differentiable
from f3eo.closure.problem import Problem
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.tensors import wide


def structured_gradient(
    value: Tensor,
    problem: Problem,
    cotangent: Tensor | None = None,
    *,
    differentiable: bool = True,
    retain: bool = False,
) -> list[Tensor]:
    """Jᵀc in the structured parameters, with J = ∂value/∂θ; the gradient if value is a scalar.

    Args:
        value: attached to the graph.
        problem: its parameters.
        cotangent: c, in the shape of `value`; default 1, for a scalar.
        differentiable: whether the gradient is attached to the graph.
        retain: whether the graph of `value` is kept; it always is if differentiable.

    Raises:
        ValueError: a parameter has a hook on its gradient.
        RuntimeError: a function in the graph has no second derivative, if differentiable.
    """
    refuse_hooks(problem.parameters, problem.name)
    gradient = list(
        torch.autograd.grad(
            value,
            problem.structured_parameters,
            cotangent,
            retain_graph=differentiable or retain,
            create_graph=differentiable,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    if differentiable:
        refuse_once_differentiable([value], gradient)
    return gradient


def structure_gradient(objective: Tensor, problem: Problem) -> list[Tensor]:
    """½∇ of Tr F, or of (2/p) Σ_i ω_i ‖∇ℓ_i‖^p, by one backward pass that frees the graph."""
    parameters = problem.structured_parameters
    if not objective.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    half = torch.full_like(objective, 0.5)
    return list(
        torch.autograd.grad(objective, parameters, half, allow_unused=True, materialize_grads=True)
    )


def squares_of(problem: Problem, found: Mapping[int, Tensor] | None) -> list[Tensor] | None:
    """`Gradients.squares`: 0 where a structured parameter is not reached; None if none were made.

    Args:
        problem: its parameters.
        found: by the id of the parameter.
    """
    if found is None:
        return None
    return [
        torch.zeros_like(wide(p)) if (own := found.get(id(p))) is None else own
        for p in problem.structured_parameters
    ]


def by_parameter(
    gradients: Mapping[int, Tensor], parameters: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradient of each parameter in its dtype, None where there is none.

    Args:
        gradients: by the id of the parameter.
        parameters: in the order of the result.
    """
    present = [(gradients.get(id(p)), p.dtype) for p in parameters]
    return [None if g is None else g.to(dtype) for g, dtype in present]
