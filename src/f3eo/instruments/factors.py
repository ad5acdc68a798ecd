"""F̂ and G as sums of squares over single samples, M = Σ_i ω_i Σ_k x_ik x_ikᵀ.

    "fisher"        x_i = ∇ℓ_i, one for a sample
    "gauss_newton"  x_ik = J_iᵀ s_ik with Σ_k s_ik s_ikᵀ = ∇²_f ℓ_i, one for an output

The factors x come as closed forms where there are any (`f3eo.fisher.ghost`), not written out.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.fisher.ghost import Ghost, Term
from f3eo.fisher.per_sample import PerSample

MEMORY = 2**30
"""Bytes that factors may take together."""

Hold = Callable[[Tensor, Term], bool]
"""(parameter, closed form) → whether it is kept as it is, and not written out."""


@dataclass(frozen=True)
class Factors:
    """x_ik of one batch.

    Args:
        weights: w_i, (B,), float64; 1 without weights.
        cotangents: s, (K, B, …), in the shape of the outputs.
        terms: for every k the factors of each parameter, by its id; B rows each. A parameter that
            the losses do not depend on is missing.
    """

    weights: Tensor
    cotangents: Tensor
    terms: list[dict[int, Term]]


def outputs_of(output: Output, of: str) -> Tensor:
    """The outputs whose Jacobian the factors are made of: ℓ for "fisher", else f.

    Raises:
        ValueError: "hessian" is no sum of squares.
        TypeError: "gauss_newton" without a likelihood.
    """
    if of == "fisher":
        return output.losses
    if of != "gauss_newton":
        raise ValueError(
            f"only 'fisher' and 'gauss_newton' are sums of squares over samples, received {of!r}: "
            f"use method='lanczos' or 'dense'"
        )
    if output.likelihood is None:
        raise TypeError(
            "Gauss-Newton needs the outputs and their Hessian: the closure must return a "
            "likelihood, Categorical(logits, targets) or Gaussian(mean, targets, std), not losses; "
            "of='fisher' takes losses"
        )
    return output.likelihood.parameters


def cotangents_of(output: Output, of: str) -> Tensor:
    """The cotangents s_ik of the outputs, (K, B, …), detached.

    For "gauss_newton" the columns of a root of ∇²_f ℓ_i by its eigenvalues; those that vanish for
    all samples are left out (a softmax has one).
    """
    f = outputs_of(output, of)
    if of == "fisher":
        return torch.ones_like(f.detach()).unsqueeze(0)
    count, entries = len(f), f[0].numel()
    (slope,) = torch.autograd.grad(output.losses.sum(), f, create_graph=True)
    rows = []
    for k in range(entries):
        unit = f.new_zeros(count, entries)
        unit[:, k] = 1
        (row,) = torch.autograd.grad(slope, f, unit.view(f.shape), retain_graph=True)
        rows.append(row.reshape(count, entries))
    values, vectors = torch.linalg.eigh(torch.stack(rows, 1).double())
    roots = (vectors * values.clamp(min=0).sqrt().unsqueeze(1)).movedim(-1, 0)
    sizes = roots.flatten(1).abs().amax(1)
    kept = sizes > sizes.max() * torch.finfo(f.dtype).eps ** 0.5
    return roots[kept].to(f).reshape(-1, *f.shape)


@dataclass(frozen=True)
class Recorded:
    """A recorded pass with the outputs and cotangents that its factors come from.

    Args:
        ghost: the pass.
        outputs: see `outputs_of`.
        cotangents: s, (K, B, …).
        weights: w_i, (B,), float64; 1 without weights.
    """

    ghost: Ghost
    outputs: Tensor
    cotangents: Tensor
    weights: Tensor


def recorded(problem: Problem, of: str, recorder: PerSample) -> Recorded:
    """Record one batch; arguments and errors are those of `factors`."""
    ghost = recorder.record(problem, differentiable=False)
    outputs, cotangents = outputs_of(ghost.output, of), cotangents_of(ghost.output, of)
    weights = ghost.output.shares.weights
    ones = torch.ones_like(ghost.losses, dtype=torch.float64)
    return Recorded(ghost, outputs, cotangents, ones if weights is None else weights.double())


def factors(
    problem: Problem,
    of: str,
    recorder: PerSample,
    hold: Hold,
    wanted: Collection[int] | None = None,
) -> Factors | None:
    """The factors of one batch.

    Args:
        problem: closure, batch and parameters.
        of: "fisher" or "gauss_newton".
        recorder: records the pass; its `memory` bounds the factors of one k that are written out.
        hold: see `Hold`.
        wanted: ids of the parameters whose factors are made; default all.

    Returns:
        None where they do not fit into that memory.

    Raises:
        ValueError, TypeError: see `outputs_of`; samples that are coupled (BatchNorm in training).
        FloatingPointError: gradients are not finite.
    """
    found = recorded(problem, of, recorder)
    terms = []
    for cotangent in found.cotangents:
        own = found.ghost.terms(found.outputs, cotangent, hold, wanted)
        if own is None:
            return None
        terms.append(own)
    return Factors(found.weights, found.cotangents, terms)


def combined(problem: Problem, of: str, cotangents: Tensor, coefficients: Tensor) -> list[Tensor]:
    """Σ_ik c_ik x_ik, a tensor per parameter, by one backward pass for each row of coefficients.

    Args:
        problem: closure, batch and parameters.
        of: "fisher" or "gauss_newton".
        cotangents: s, (K, B, …).
        coefficients: c, (r, K·B), the samples last.

    Returns:
        For each parameter the r sums, (r, *shape).
    """
    outputs = outputs_of(evaluate(problem, per_sample=True, differentiable=False), of)
    flat = cotangents.flatten(2) if cotangents.ndim > 2 else cotangents.unsqueeze(-1)
    grouped = coefficients.to(flat).view(len(coefficients), *flat.shape[:2], 1)
    along = (grouped * flat).sum(1).reshape(-1, *outputs.shape)
    sums = [
        torch.autograd.grad(
            outputs,
            problem.parameters,
            c,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for c in along
    ]
    return [torch.stack(column) for column in zip(*sums, strict=True)]
