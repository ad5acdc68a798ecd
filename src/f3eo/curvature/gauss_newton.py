"""The generalized Gauss-Newton matrix G, as exact matrix-vector products.

    G = (1/B) Σ_i J_iᵀ (∇²_f ℓ_i) J_i

f are the parameters of the likelihood (logits or means) and J_i is the Jacobian of sample i's f in
the parameters. For Categorical and Gaussian likelihoods with one position a sample, ∇²_f ℓ =
E_ŷ[∇_f ℓ ∇_f ℓᵀ], so G is the true Fisher matrix F and G⁻¹∇L the natural gradient (Martens 2020,
section 9.2). If the loss of a sample averages T positions, G = T·F.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.output import Output
from f3eo.curvature.jacobian import Jacobian
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import flatten
from f3eo.tensors import filled


def gauss_newton(
    output: Output, parameters: Sequence[Tensor], blocks: Sequence[Sequence[int]]
) -> list[Quadratic]:
    """Gauss-Newton model of the mean loss on each block of parameters, the others held fixed.

    B v = Jᵀ (∇²_f L) J v, by `f3eo.curvature.jacobian`.

    Args:
        output: output of a closure that returns a likelihood, evaluated with `differentiable=True`.
        parameters: the trained parameters.
        blocks: positions in `parameters` of each block's parameters.

    Returns:
        One model for each block; they share and hold the graph.

    Raises:
        TypeError: the closure returned losses, which do not tell f.
        ValueError: the losses depend on none of the parameters.

    Source: Schraudolph 2002; Martens 2010, section 4.2.

    >>> from f3eo import Gaussian
    >>> from f3eo.closure.evaluate import evaluate
    >>> from f3eo.closure.problem import Problem
    >>> x, y = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])
    >>> w = torch.zeros(2, requires_grad=True)
    >>> problem = Problem(lambda x, y: Gaussian(w[0] * x + w[1], y), (x, y), [w])
    >>> output = evaluate(problem, per_sample=True, differentiable=True)
    >>> (model,) = gauss_newton(output, [w], [[0]])
    >>> model.product(torch.tensor([1.0, 0.0]))  # mean of x², mean of x
    tensor([5., 2.])
    """
    if output.likelihood is None:
        raise TypeError(
            "Gauss-Newton needs the outputs and their Hessian: the closure must return a "
            "likelihood, Categorical(logits, targets) or Gaussian(mean, targets, std), not losses; "
            "NewtonCG takes losses"
        )
    f = output.likelihood.parameters
    loss = output.mean()
    gradient = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    check_reached(gradient, parameters)
    (output_gradient,) = torch.autograd.grad(loss, f, create_graph=True)  # ∇_f L
    jacobian = Jacobian(f, parameters)

    def block_model(block: Sequence[int]) -> Quadratic:
        own = [parameters[i] for i in block]
        reached = bool(jacobian.reaches(block))

        def product(v: Tensor) -> Tensor:
            if not reached:
                return torch.zeros_like(v)
            (hessian_product,) = torch.autograd.grad(
                output_gradient, f, jacobian.product(v, block), retain_graph=True
            )
            return jacobian.transposed(hessian_product, block)

        return Quadratic(list(block), flatten(filled([gradient[i] for i in block], own)), product)

    return [block_model(block) for block in blocks]
