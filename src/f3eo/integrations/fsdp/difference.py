"""h by differences of two ordinary backward passes of a sharded model.

s_i = ε a_i ‖D ∇ℓ_i‖^(p−2)
h = (1/ε) Σ_r (W_r/W) Σ_i ω_i (∇ℓ_i(θ + s_i D² ∇ℓ_i) − ∇ℓ_i(θ))

ε is one number for the samples of all processes (`f3eo.fisher.differences`).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.residuals import outputs_of
from f3eo.curvature.guard import Differs, failed_again
from f3eo.curvature.mismatch import OTHER_LOSSES, sample_mismatch
from f3eo.fisher import Gradients, PerSample
from f3eo.fisher.accuracy import Width, in_16_bits, refuse_coarse, unit_of_sums, width
from f3eo.fisher.ghost.second_pass.replay import SecondPass
from f3eo.fisher.ghost.second_pass.shifted import Shifted
from f3eo.integrations.fsdp.passes import First, backward
from f3eo.integrations.fsdp.units import Units
from f3eo.tensors import above_rounding, filled, plus, scaled


@dataclass(frozen=True)
class _Steps:
    """How far the samples move; see `f3eo.fisher.differences`.

    Args:
        loss, trace, euclidean: L, Tr(D F D) and Tr F over all processes.
        epsilon: ε.
        share: 1/ε, or 1/2ε if central.
        powers: a_i ‖D ∇ℓ_i‖^(p−2), (B_r,); None where all are 1.
        rises: s_i ‖D ∇ℓ_i‖², (B_r,).
        width: of the difference.
    """

    loss: Tensor
    trace: Tensor
    euclidean: Tensor
    epsilon: Tensor
    share: Tensor
    powers: Tensor | None
    rises: Tensor
    width: Width


def structure_of(
    first: First,
    replay: Replay,
    units: Units,
    problem: Problem,
    inner: Problem,
    estimator: PerSample,
    length: Tensor,
) -> Gradients:
    """The estimates, h by one more pass, or two if central.

    Args:
        first: what is kept of the first pass.
        replay: runs the closure in the surroundings of the first pass.
        units: of the sharded model.
        problem, inner: the problem in DTensors, and in whole parameters.
        estimator: gives engine, power, emphasis and whether residuals are held.
        length: ‖θ/D‖.

    Raises:
        Differs: the second pass is another function, on one process or more.
    """
    steps = None if first.kept is None else _steps(first, units, estimator, length)
    if steps is None or not bool(steps.trace.isfinite() & steps.width.distance.isfinite()):
        return _not_finite(first, problem, units)
    central = estimator.engine.central  # pyright: ignore[reportAttributeAccessIssue]
    assert first.kept is not None
    if in_16_bits(first.kept.unit):  # else they are all there is
        wholes = inner.structured_parameters
        refuse_coarse(steps.width, first.kept.unit, wholes, central=central)
    passes: list[list[Tensor]] = []
    for sign in (1, -1) if central else (1,):
        moved = partial(_moved, first, problem, inner, steps, sign * steps.epsilon)
        losses, gradient = replay.rerun(moved)
        kept = first.kept
        assert kept is not None
        rises, bending = sign * steps.rises, steps.width.moved
        mismatch = sample_mismatch(first.losses, losses, rises, bending, kept.unit)
        if units.any(float(mismatch) > 1):
            raise Differs(OTHER_LOSSES)
        passes.append(gradient)
    low = passes[1] if central else scaled(_structured(first, problem), float(steps.share))
    structure = plus(passes[0], low, -1.0)
    rounding = unit_of_sums(first.kept.unit) * steps.euclidean.sqrt() * steps.share
    return Gradients(
        loss=steps.loss,
        weight=first.together.total,
        gradient=first.gradient,
        structure=above_rounding(structure, rounding, read=True),
        trace=steps.trace,
        error=steps.width.error,
    )


def _steps(first: First, units: Units, estimator: PerSample, length: Tensor) -> _Steps:
    kept, together, losses = first.kept, first.together, first.losses
    assert kept is not None
    shares, factor = together.shares, together.scale.to(losses).square()
    squared = shares.squared_norms(kept.squared / factor)
    euclidean = shares.squared_norms(kept.euclidean / factor)
    powers = estimator.quantity.factors(squared, losses)
    lengths = squared if powers is None else powers.square() * squared
    means = [losses, losses.abs(), squared.sqrt(), lengths, squared, euclidean]
    loss, size, norm, moved, trace, plain = units.sums(
        torch.stack([together.mean(x) for x in means])
    ).to(losses)
    engine, unit = estimator.engine, kept.unit
    own = engine, length.to(losses), size, norm, unit_of_sums(unit)
    best = width(*own)  # pyright: ignore
    moved = moved.sqrt()
    epsilon = best.distance / torch.where(moved == 0, 1, moved)
    central = engine.central  # pyright: ignore[reportAttributeAccessIssue]
    return _Steps(
        loss=loss,
        trace=trace,
        euclidean=plain,
        epsilon=epsilon,
        share=1 / (2 * epsilon if central else epsilon),
        powers=powers,
        rises=epsilon * (squared if powers is None else powers * squared),
        width=best,
    )


def _moved(
    first: First, problem: Problem, inner: Problem, steps: _Steps, epsilon: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The losses and (1/ε) Σ ω_i ∇ℓ_i over all processes, every sample at parameters of its own."""
    kept, together = first.kept, first.together
    assert kept is not None
    step = together.shares.divide(epsilon) / together.scale.to(epsilon)
    step = step if steps.powers is None else step * steps.powers
    shifted = {
        id(p): Shifted(p, term, step)
        for p in inner.structured_parameters
        if (term := kept.moves.get(id(p))) is not None
    }
    mode = SecondPass(first.tape, shifted)
    try:
        losses = evaluate(
            inner, per_sample=True, differentiable=False, mode=mode, announced=False
        ).losses
    except Exception as error:  # whatever it is, the first pass did not raise it
        raise failed_again(error) from error
    if first.residuals is None:
        roots, along = [losses], [together.cotangent(losses) * steps.share]
    else:
        roots = outputs_of(losses)
        if roots is None or len(roots) != len(first.residuals):
            raise Differs(OTHER_LOSSES)
        along = [r * steps.share for r in first.residuals]
    _, gradient = backward(roots, along, problem)
    own = [g for g, s in zip(gradient, problem.structured, strict=True) if s]
    return losses.detach(), filled(own, problem.structured_parameters)


def _structured(first: First, problem: Problem) -> list[Tensor]:
    """∇L in the structured parameters."""
    own = [g for g, s in zip(first.gradient, problem.structured, strict=True) if s]
    return filled(own, problem.structured_parameters)


def _not_finite(first: First, problem: Problem, units: Units) -> Gradients:
    """NaN for h and the trace; the step is skipped, on every process."""
    loss = units.sums(first.together.mean(first.losses)).to(first.losses)
    structure = [torch.full_like(p, torch.nan) for p in problem.structured_parameters]
    nan = torch.full_like(loss, torch.nan)
    return Gradients(loss, first.together.total, first.gradient, structure, nan)
