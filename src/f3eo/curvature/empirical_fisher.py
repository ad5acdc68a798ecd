"""The empirical Fisher matrix F̂ = Σ_i ω_i ∇ℓ_i ∇ℓ_iᵀ, as exact matrix-vector products."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.output import Output
from f3eo.curvature.jacobian import Jacobian
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import flatten
from f3eo.tensors import filled


def empirical_fisher(output: Output, parameters: Sequence[Tensor]) -> Quadratic:
    """The model with g = ∇L and B = F̂: B v = Jᵀ(ω ∘ J v), J = ∂(ℓ_1, …, ℓ_B)/∂θ.

    ω_i = 1/B without weights (`f3eo.fisher.estimand`). F̂ is no curvature: away from a fit it says
    nothing of ∇²L (Kunstner et al. 2019, 1905.12558).

    Args:
        output: output of a closure, evaluated with `per_sample=True` and `differentiable=True`.
        parameters: the trained parameters, P entries in total.

    Returns:
        The model; it holds the graph.

    Raises:
        ValueError: the losses depend on none of the parameters.

    >>> from f3eo.closure.evaluate import evaluate
    >>> from f3eo.closure.problem import Problem
    >>> w, x = torch.ones(2, requires_grad=True), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    >>> problem = Problem(lambda x: x @ w, (x,), [w])
    >>> model = empirical_fisher(evaluate(problem, per_sample=True, differentiable=True), [w])
    >>> model.product(torch.tensor([1.0, 0.0]))  # mean of x₁², mean of x₁ x₂
    tensor([5., 6.])
    """
    parameters, losses = list(parameters), output.losses
    gradient = torch.autograd.grad(output.mean(), parameters, retain_graph=True, allow_unused=True)
    check_reached(gradient, parameters)
    jacobian, shares = Jacobian(losses, parameters), output.shares.as_tensor(losses.detach())
    every = range(len(parameters))

    def product(v: Tensor) -> Tensor:
        return jacobian.transposed(shares * jacobian.product(v, every), every)

    return Quadratic(list(every), flatten(filled(gradient, parameters)), product)
