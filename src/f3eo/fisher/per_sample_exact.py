"""The per-sample trace, and h by double backward, from a recording of the forward pass."""

import torch
from torch import Tensor

from f3eo.closure.graph import refuse_once_differentiable
from f3eo.closure.problem import Problem
from f3eo.fisher.accuracy import rounding
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.ghost import Ghost, Squares
from f3eo.fisher.ghost.gradients.norms import Norms
from f3eo.fisher.parameters import by_parameter, squares_of, structure_gradient
from f3eo.fisher.quantity import Quantity
from f3eo.fisher.sample_norms import SampleNorms
from f3eo.tensors import over


def exact_gradients(ghost: Ghost, problem: Problem, quantity: Quantity) -> Gradients:
    """∇L, Tr F and h = ½∇ (2/p) Σ_i ω_i a_i ‖D ∇ℓ_i‖^p by differentiating the norms.

    Args:
        ghost: of a differentiable pass; its graph is freed.
        problem: closure, batch and parameters.
        quantity: p, and a_i.
    """
    losses, shares, unit = ghost.losses, ghost.output.shares, ghost.recording.unit()
    factor = problem.factor
    squares = _squares(ghost) if problem.squares else None
    # Of ω_i ∇ℓ_i, whose sum is ∇L.
    norms = ghost.loss_norms(shares.as_tensor(losses, factor)).over(factor)
    trace = shares.trace(norms.squared)
    squared, objective = shares.squared_norms(norms.squared), trace  # ‖∇ℓ_i‖²
    power, emphasis = quantity.power, quantity.emphasis.of(losses.detach())
    if power != 2 or emphasis is not None:
        positive = squared > 0  # a root has no derivative at 0, where h_i is 0
        powers = torch.where(positive, squared, 1) ** (power / 2) * positive
        powers = powers if emphasis is None else powers * emphasis
        objective = shares.mean_or_zero(powers) * (2 / power)
    refuse_once_differentiable([losses], [objective])
    structure = _structure(objective, trace.detach(), power, problem)
    return Gradients(
        loss=shares.mean(losses.detach()),
        weight=shares.total,
        gradient=by_parameter(norms.totals, problem.parameters),
        structure=structure,
        trace=trace.detach(),
        error=rounding(shares.mean_or_zero(losses.detach().abs()), unit),
        norms=sample_norms(ghost, norms),
        squares=squares_of(problem, squares),
    )


def _structure(objective: Tensor, trace: Tensor, power: float, problem: Problem) -> list[Tensor]:
    """h; in float16 by way of c h with c = S (Tr F)^((1 − p)/2).

    The passes through float16 then begin with S ω_i ∇ℓ_i over the root mean square of ∇ℓ_i.
    """
    if problem.factor == 1:
        return structure_gradient(objective, problem)
    c = torch.where(trace > 0, trace, 1) ** ((1 - power) / 2) * problem.factor
    scaled = structure_gradient(objective * c.to(objective), problem)
    return over(scaled, c)


def _squares(ghost: Ghost) -> dict[int, Tensor]:
    """Σ_i ω_i ∇ℓ_i ∘ ∇ℓ_i by one more backward pass, of √ω_i ℓ_i."""
    if not len(ghost.losses):
        return {}
    factor, along = ghost.problem.factor, ghost.output.shares.as_tensor(ghost.losses).sqrt()
    if factor == 1:
        return ghost.forms(Squares(), ghost.losses, along)
    found = ghost.forms(Squares(), ghost.losses, factor * along)
    return {key: own / factor**2 for key, own in found.items()}


def attached_trace(ghost: Ghost) -> tuple[Tensor, Tensor]:
    """Losses (B,) whose mean is L, and Tr F, both attached to the graph."""
    losses, shares = ghost.losses, ghost.output.shares
    squared = ghost.loss_norms().squared
    refuse_once_differentiable([losses], [squared])
    return shares.rescale(losses), shares.mean_or_zero(squared)


def sample_norms(ghost: Ghost, norms: Norms) -> SampleNorms:
    """The norms of ω_i ∇ℓ_i without their graph."""
    by_leaf = {key: own.detach() for key, own in norms.by_leaf.items()}
    euclidean = None if ghost.diagonals else norms.squared.detach()
    return SampleNorms.of(ghost.output.shares, by_leaf, euclidean)
