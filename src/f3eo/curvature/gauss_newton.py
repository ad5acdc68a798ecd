"""The generalized Gauss-Newton matrix, as exact products from one forward pass.

    G = (1/B) Σ_i J_iᵀ (∇²_f ℓ_i) J_i       (f: logits or means)

J_i is the Jacobian of the i-th sample's f in the parameters. With Categorical and Gaussian
likelihoods of one position a sample, ∇²_f ℓ = E_ŷ[∇_f ℓ ∇_f ℓᵀ], so G is the true Fisher matrix F
and G⁻¹∇L the natural gradient (Martens 2020, section 9.2). With T positions averaged, G = T·F.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.likelihood import Likelihood
from f3eo.closure.output import Output
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import joined, split
from f3eo.tensors import filled


def gauss_newton(
    output: Output, parameters: Sequence[Tensor], blocks: Sequence[Sequence[int]]
) -> list[Quadratic]:
    """The Gauss-Newton model of the mean loss on each block of parameters, the others held fixed.

    B v = Jᵀ (∇²_f L) J v. The Jacobian's forward product comes from two backward passes, J v =
    ∇_u⟨Jᵀu, v⟩, which every operation with a second derivative has.

    Args:
        output: of a closure that returned a likelihood, its graph differentiable twice.
        parameters: all that the optimizer trains.
        blocks: places of the parameters of each block.

    Returns:
        A model for every block; they share, and hold, the graph.

    Raises:
        TypeError: the closure returned losses, which do not say where f is.
        ValueError: losses that depend on none of the parameters.

    Source: Schraudolph 2002; Martens 2010, section 4.2.
    """
    f = _likelihood(output.likelihood).parameters
    loss = output.mean()
    gradient = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    check_reached(gradient, parameters)
    (slope,) = torch.autograd.grad(loss, f, create_graph=True)  # ∇_f L, for ∇²_f L
    u = torch.zeros_like(f, requires_grad=True)  # Jᵀu is linear in u: its value has no part
    pulled = torch.autograd.grad(f, parameters, u, create_graph=True, allow_unused=True)

    def model(block: Sequence[int]) -> Quadratic:
        own = [parameters[i] for i in block]
        used = [k for k, i in enumerate(block) if pulled[i] is not None]

        def product(v: Tensor) -> Tensor:
            if not used:
                return torch.zeros_like(v)
            vector = split(v, own)
            (forward,) = torch.autograd.grad(
                [pulled[block[k]] for k in used], u, [vector[k] for k in used], retain_graph=True
            )
            (bent,) = torch.autograd.grad(slope, f, forward, retain_graph=True)
            back = torch.autograd.grad(f, own, bent, retain_graph=True, allow_unused=True)
            return joined(filled(back, own))

        return Quadratic(list(block), joined(filled([gradient[i] for i in block], own)), product)

    return [model(block) for block in blocks]


def _likelihood(likelihood: Likelihood | None) -> Likelihood:
    if likelihood is None:
        raise TypeError(
            "Gauss-Newton needs the outputs and their Hessian: the closure must return a "
            "likelihood, Categorical(logits, targets) or Gaussian(mean, targets, std), not losses; "
            "NewtonCG takes losses"
        )
    return likelihood
