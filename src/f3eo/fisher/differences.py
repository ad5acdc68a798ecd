"""h by finite differences: a second pass in which every sample has parameters of its own.

s_i = ε ‖∇ℓ_i‖^(p−2)
h = (1/ε) Σ_i ω_i (∇ℓ_i(θ + s_i ∇ℓ_i) − ∇ℓ_i(θ))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.closure.snapshot import Replay
from f3eo.closure.weighted import Shares
from f3eo.curvature import FiniteDifference
from f3eo.curvature.finite_difference import above_rounding
from f3eo.curvature.guard import Coarse, Differs, failed_again
from f3eo.curvature.mismatch import OTHER_LOSSES, sample_mismatch
from f3eo.fisher.accuracy import LIMIT, Width, expected_error, width
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.ghost import Ghost
from f3eo.fisher.ghost.evidence import Probe
from f3eo.fisher.ghost.gradients.kept import Gathered
from f3eo.fisher.ghost.second_pass.replay import Perturbed, SecondPass
from f3eo.fisher.ghost.second_pass.shifted import Shifted
from f3eo.fisher.parameters import by_parameter, structured_parameters
from f3eo.fisher.single_samples import CHECKED, SampleStructure, refuse_wrong_structure
from f3eo.tensors import filled, plus, scaled, squared_norm


@dataclass(frozen=True)
class FirstPass:
    """What is kept of the first pass, detached.

    Args:
        losses: ℓ_i, (B,).
        shares: ω_i.
        probes: gradients of single samples, if this pass is a check.
        kept: norms, totals and terms of ω_i ∇ℓ_i.
        recorded: what the second pass repeats.
    """

    losses: Tensor
    shares: Shares
    probes: Sequence[Probe]
    kept: Gathered
    recorded: SecondPass


def per_sample_gradients(recording: Ghost) -> FirstPass:
    """∇L, ‖∇ℓ_i‖ and ∇ℓ_i from one backward pass, which frees the recorded tensors.

    Raises:
        NotRepeatable: no second pass is possible.
    """
    kept, recorded = recording.gathered()
    shares = recording.output.shares
    return FirstPass(recording.losses.detach(), shares, recording.probes, kept, recorded)


@dataclass(frozen=True)
class _Steps:
    """How far every sample moves along its own gradient.

    Args:
        epsilon: ε, a scalar.
        squared: ‖∇ℓ_i‖², (B,).
        powers: ‖∇ℓ_i‖^(p−2), (B,), 0 where ∇ℓ_i is; None at p = 2, where all are 1.
        lengths: (s_i ‖∇ℓ_i‖/ε)², (B,).
        width: of the difference, with its expected error.
    """

    epsilon: Tensor
    squared: Tensor
    powers: Tensor | None
    lengths: Tensor
    width: Width


@dataclass(frozen=True)
class _Moved:
    """The second pass at θ + s_i ∇ℓ_i.

    Args:
        losses: ℓ_i, (B,).
        gradient: Σ ω_i ∇ℓ_i/ε (half of it, central), a tensor per structured parameter.
        samples: ∇ℓ_i of the checked samples.
    """

    losses: Tensor
    gradient: list[Tensor]
    samples: list[list[Tensor]]


def second_pass(
    replay: Replay[Ghost],
    first: FirstPass,
    problem: Problem,
    engine: FiniteDifference,
    power: float,
    *,
    forced: bool = False,
) -> Gradients:
    """h by a second pass, or two if central; ∇L and Tr F are those of the first.

    Args:
        replay: runs the closure in the surroundings of the first pass.
        first: what is kept of it.
        problem: closure, batch and parameters.
        engine: the width of the differences.
        power: p.
        forced: whether differences are taken even if they are coarse.

    Raises:
        Coarse: double backward is more exact, and the engine has no step of its own.
        Differs: the second pass is another function, or h is not what double backward gives.
    """
    parameters, shares, kept = structured_parameters(problem), first.shares, first.kept
    steps = _steps(first, parameters, engine, power)
    limited = not (forced or problem.repeatable or engine.step is not None)
    if limited and float(steps.width.error) > LIMIT:
        raise Coarse(f"they are expected to err by more than {LIMIT:.0%}")
    # Infinite where Tr F̂ overflows; then h is not finite either.
    share = 1 / (2 * steps.epsilon if engine.central else steps.epsilon)
    probes = _longest(first.probes, problem)
    single_use = set() if engine.central else first.recorded.once

    def moved(epsilon: Tensor) -> _Moved:
        step = shares.divided(epsilon)
        step = step if steps.powers is None else step * steps.powers
        shifted = {
            id(p): Shifted(p, kept.terms[id(p)], step, once=id(p) in single_use)
            for p in parameters
            if id(p) in kept.terms
        }
        mode = Perturbed(first.recorded, shifted)
        losses = evaluate(problem, per_sample=True, differentiable=False, mode=mode).losses
        samples = [_gradient(losses[p.sample], parameters, retain=True) for p in probes]
        gradient = _gradient(losses, parameters, shares.like(losses, share))
        return _Moved(losses.detach(), gradient, samples)

    passes = [_again(replay, moved, steps.epsilon)]
    if engine.central:
        passes.append(_again(replay, moved, -steps.epsilon))
    if not problem.repeatable:
        _refuse_other_losses(first, steps, passes)
        if probes:
            measured = _sample_structures(first, steps, passes, probes, problem, share)
            refuse_wrong_structure(measured, replay, problem, power)
    trace = shares.trace(kept.squared)
    structure = _difference(passes, kept, parameters, share)
    return Gradients(
        loss=shares.mean(first.losses),
        weight=shares.total,
        gradient=by_parameter(kept.totals, problem.parameters),
        structure=above_rounding(structure, kept.unit * trace.sqrt() * share),
        trace=trace,
        error=steps.width.error,
    )


def _steps(
    first: FirstPass, parameters: list[Tensor], engine: FiniteDifference, power: float
) -> _Steps:
    shares, unit = first.shares, first.kept.unit
    squared = shares.own(first.kept.squared)
    powers = None if power == 2 else torch.where(squared > 0, squared, torch.inf) ** (power / 2 - 1)
    lengths = squared if powers is None else powers.square() * squared
    best = width(engine, parameters, first.losses, squared.sqrt(), shares, unit)
    length = shares.average(lengths).sqrt()
    epsilon = best.distance / torch.where(length == 0, 1, length)
    return _Steps(epsilon, squared, powers, lengths, best)


def _gradient(
    losses: Tensor,
    parameters: list[Tensor],
    cotangent: Tensor | None = None,
    *,
    retain: bool = False,
) -> list[Tensor]:
    gradient = torch.autograd.grad(
        losses, parameters, cotangent, allow_unused=True, retain_graph=retain
    )
    return filled(gradient, parameters)


def _again(replay: Replay[Ghost], moved, epsilon: Tensor) -> _Moved:
    try:
        return replay.once_more(lambda: moved(epsilon))
    except Exception as error:  # whatever it is, the first pass did not raise it
        raise failed_again(error) from error


def _difference(
    passes: Sequence[_Moved], kept: Gathered, parameters: list[Tensor], share: Tensor
) -> list[Tensor]:
    """h, from the passes at +ε and −ε, or at +ε and 0."""
    if len(passes) == 2:
        return plus(passes[0].gradient, passes[1].gradient, -1.0)
    low = filled(by_parameter(kept.totals, parameters), parameters)
    return [
        torch.addcmul(high, g, share, value=-1)
        for high, g in zip(passes[0].gradient, low, strict=True)
    ]


def _refuse_other_losses(first: FirstPass, steps: _Steps, passes: Sequence[_Moved]) -> None:
    """Raise `Differs` if a pass has other losses than ∇ℓ_i predicts."""
    # s_i ‖∇ℓ_i‖²
    rise = steps.epsilon * (steps.squared if steps.powers is None else steps.powers * steps.squared)
    for sign, second in zip((1, -1), passes, strict=False):
        mismatch = sample_mismatch(
            first.losses, second.losses, sign * rise, steps.width.moved, first.kept.unit
        )
        if float(mismatch) > 1:
            raise Differs(OTHER_LOSSES)


def _longest(probes: Sequence[Probe], problem: Problem) -> list[Probe]:
    """The probes with the longest gradients, `CHECKED` at most, none of length 0."""
    squared = [float(squared_norm(_structured(probe, problem))) for probe in probes]
    order = sorted(range(len(probes)), key=lambda k: -squared[k])
    return [probes[k] for k in order if squared[k] > 0][:CHECKED]


def _structured(probe: Probe, problem: Problem) -> list[Tensor]:
    """∇ℓ_i in the structured parameters on which ℓ_i depends."""
    pairs = zip(probe.leaves, problem.structured, strict=True)
    return [g for g, structured in pairs if structured and g is not None]


def _sample_structures(
    first: FirstPass,
    steps: _Steps,
    passes: Sequence[_Moved],
    probes: Sequence[Probe],
    problem: Problem,
    share: Tensor,
) -> list[SampleStructure]:
    """h of the probed samples from the same passes."""
    parameters, central = structured_parameters(problem), len(passes) == 2
    distances = steps.epsilon * steps.lengths.sqrt()
    structures = []
    for k, probe in enumerate(probes):
        i = probe.sample
        if central:
            low = passes[1].samples[k]
        else:
            pairs = zip(probe.leaves, problem.structured, strict=True)
            low = filled([g for g, structured in pairs if structured], parameters)
        structure = scaled(plus(passes[0].samples[k], low, -1.0), float(share))
        norm = squared_norm(_structured(probe, problem)).sqrt()
        loss, unit = first.losses[i].abs(), first.kept.unit
        error = expected_error(distances[i], loss, norm, unit, central=central)
        structures.append(SampleStructure(i, structure, float(error)))
    return structures
