"""h by finite differences: a second pass in which every sample has parameters of its own.

s_i = ε a_i ‖D ∇ℓ_i‖^(p−2)
h = (1/ε) Σ_i ω_i (∇ℓ_i(θ + s_i D² ∇ℓ_i) − ∇ℓ_i(θ))

Distances are in the units of the metric: those of θ/D, in which the gradient is D ∇ℓ_i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.residuals import outputs_of
from f3eo.curvature import FiniteDifference
from f3eo.curvature.guard import Differs, failed_again
from f3eo.curvature.mismatch import OTHER_LOSSES, sample_mismatch
from f3eo.fisher.accuracy import Width, expected_error, refuse_coarse, unit_of_sums, width
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.ghost import FirstPass, Ghost
from f3eo.fisher.ghost.evidence import Probe
from f3eo.fisher.ghost.second_pass.replay import SecondPass
from f3eo.fisher.ghost.second_pass.shifted import Shifted
from f3eo.fisher.metric import Diagonals, length, times
from f3eo.fisher.parameters import by_parameter, squares_of
from f3eo.fisher.quantity import Quantity
from f3eo.fisher.sample_norms import SampleNorms
from f3eo.fisher.single_samples import CHECKED, SampleStructure, refuse_wrong_structure
from f3eo.tensors import above_rounding, filled, over, plus, scaled, squared_norm


@dataclass(frozen=True)
class _Steps:
    """How far every sample moves along its own gradient.

    Args:
        parameters: the structured parameters θ.
        epsilon: ε, a scalar.
        central: whether samples move in both directions.
        share: 1/ε, or 1/2ε if central, a scalar.
        powers: a_i ‖D ∇ℓ_i‖^(p−2), (B,); None where all are 1.
        lengths: (s_i ‖D ∇ℓ_i‖/ε)², (B,).
        rises: s_i ‖D ∇ℓ_i‖², (B,), by which the losses rise to first order.
        width: of the difference, with its expected error.
    """

    parameters: list[Tensor]
    epsilon: Tensor
    central: bool
    share: Tensor
    powers: Tensor | None
    lengths: Tensor
    rises: Tensor
    width: Width


@dataclass(frozen=True)
class _Pass:
    """The second pass at θ + s_i D² ∇ℓ_i.

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
    quantity: Quantity,
    *,
    forced: bool = False,
) -> Gradients:
    """h by a second pass, or two if central; ∇L and Tr F are those of the first.

    Args:
        replay: runs the closure in the surroundings of the first pass.
        first: what is kept of it.
        problem: closure, batch and parameters.
        engine: the width of the differences.
        quantity: p, a_i, and whether ∂ℓ/∂f is held.
        forced: whether differences are taken even if they are coarse.

    Raises:
        Coarse: double backward is more exact, and the engine has no step of its own.
        Differs: the second pass is another function, or h is not what double backward gives.
    """
    shares, kept = first.shares, first.gradients
    steps = _steps(first, problem, engine, quantity)
    if not (forced or problem.repeatable or engine.step is not None):
        refuse_coarse(steps.width, kept.unit, steps.parameters, central=engine.central)
    probes = _longest(first, problem) if first.probes else []
    passes: list[_Pass] = []
    for epsilon in (steps.epsilon, -steps.epsilon) if steps.central else (steps.epsilon,):
        try:
            passes.append(replay.rerun(partial(_moved, first, problem, steps, probes, epsilon)))
        except Differs:
            raise
        except Exception as error:  # whatever it is, the first pass did not raise it
            raise failed_again(error) from error
    if not problem.repeatable:
        for sign, second in zip((1, -1), passes, strict=False):
            rises, bending = sign * steps.rises, steps.width.moved
            if float(sample_mismatch(first.losses, second.losses, rises, bending, kept.unit)) > 1:
                raise Differs(OTHER_LOSSES)
        if probes:
            measured = _sample_structures(first, problem, steps, probes, passes)
            refuse_wrong_structure(measured, replay, problem, quantity, first.diagonals)
    trace, loss = shares.trace(kept.squared), shares.mean(first.losses)
    euclidean = trace if kept.euclidean is kept.squared else shares.trace(kept.euclidean)
    weight = shares.total
    gradient = by_parameter(kept.totals, problem.parameters)
    structure = _difference(passes, gradient, problem, steps.share)
    rounding = unit_of_sums(kept.unit) * euclidean.sqrt() * steps.share
    return Gradients(
        loss=loss,
        weight=weight,
        gradient=gradient,
        structure=above_rounding(structure, rounding, read=not problem.repeatable),
        trace=trace,
        error=steps.width.error,
        norms=SampleNorms.of(shares, kept.by_leaf, kept.euclidean),
        squares=squares_of(problem, kept.squares),
    )


def _steps(
    first: FirstPass, problem: Problem, engine: FiniteDifference, quantity: Quantity
) -> _Steps:
    parameters, shares, unit = problem.structured_parameters, first.shares, first.gradients.unit
    squared = shares.squared_norms(first.gradients.squared)
    powers = quantity.factors(squared, first.losses)
    lengths = squared if powers is None else powers.square() * squared
    norms = squared.sqrt().to(first.losses)
    loss, norm, moved = shares.means_or_zero(first.losses.abs(), norms, lengths)
    best = width(engine, length(parameters, first.diagonals), loss, norm, unit_of_sums(unit))
    moved = moved.sqrt()
    epsilon = best.distance / torch.where(moved == 0, 1, moved)
    return _Steps(
        parameters=parameters,
        epsilon=epsilon,
        central=engine.central,
        # Infinite where Tr F̂ overflows; then h is not finite either.
        share=1 / (2 * epsilon if engine.central else epsilon),
        powers=powers,
        lengths=lengths,
        rises=epsilon * (squared if powers is None else powers * squared),
        width=best,
    )


def _moved(
    first: FirstPass, problem: Problem, steps: _Steps, probes: Sequence[Probe], epsilon: Tensor
) -> _Pass:
    """Evaluate and differentiate the closure with every sample at θ + s_i D² ∇ℓ_i.

    Args:
        first, problem, steps: of the batch.
        probes: their samples are differentiated one by one, too.
        epsilon: ε or −ε.
    """
    parameters, shares = steps.parameters, first.shares
    factor = first.factor
    step = shares.divide(epsilon if factor == 1 else epsilon / factor)
    step = step if steps.powers is None else step * steps.powers
    # In float16 the share joins afterwards, in float32: passes begin with S ω_i as the first did.
    share = steps.share if factor == 1 else torch.full_like(steps.share, factor)
    single_use = set() if steps.central else first.tape.single_use
    shifted = {}
    for p in parameters:
        if (term := first.gradients.moves.get(id(p))) is not None:
            shifted[id(p)] = Shifted(p, term, step, single_use=id(p) in single_use)
    mode = SecondPass(first.tape, shifted)
    losses = evaluate(
        problem, per_sample=True, differentiable=False, mode=mode, announced=False
    ).losses
    differentiate = partial(
        torch.autograd.grad, inputs=parameters, allow_unused=True, materialize_grads=True
    )
    samples: list[list[Tensor]] = []
    if first.residuals is None:
        for probe in probes:
            along = None if factor == 1 else losses.new_tensor(probe.factor)
            loss = losses[probe.sample]
            samples.append(list(differentiate(loss, grad_outputs=along, retain_graph=True)))
        gradient = differentiate(losses, grad_outputs=shares.as_tensor(first.losses, share))
    else:
        outputs = outputs_of(losses)
        if outputs is None or len(outputs) != len(first.residuals.batch):
            raise Differs(OTHER_LOSSES)
        held = dict(zip(map(id, first.probes), first.residuals.probes, strict=True))
        for probe in probes:
            along = held[id(probe)]
            samples.append(list(differentiate(outputs, grad_outputs=along, retain_graph=True)))
        residuals = first.residuals.batch
        along = residuals if factor != 1 else [r * steps.share for r in residuals]
        gradient = differentiate(outputs, grad_outputs=along)
    if factor != 1:
        gradient = over(gradient, factor / steps.share)
        samples = [over(own, p.factor) for own, p in zip(samples, probes, strict=True)]
    return _Pass(losses.detach(), list(gradient), samples)


def _difference(
    passes: Sequence[_Pass], gradient: Sequence[Tensor | None], problem: Problem, share: Tensor
) -> list[Tensor]:
    """h, from the passes at +ε and −ε, or at +ε and 0, where the gradient is ∇L."""
    if len(passes) == 2:
        return plus(passes[0].gradient, passes[1].gradient, -1.0)
    structure = []
    for high, low in zip(passes[0].gradient, _structured(gradient, problem), strict=True):
        low = torch.zeros_like(high) if low is None else low
        structure.append(torch.addcmul(high, low, share, value=-1))
    return structure


def _longest(first: FirstPass, problem: Problem) -> list[Probe]:
    """The probes with the longest gradients, `CHECKED` at most, none of length 0."""
    probes = first.probes
    squared = [float(_squared_norm(probe, problem, first.diagonals)) for probe in probes]
    order = sorted(range(len(probes)), key=lambda k: -squared[k])
    return [probes[k] for k in order if squared[k] > 0][:CHECKED]


def _squared_norm(probe: Probe, problem: Problem, diagonals: Diagonals) -> Tensor:
    """‖D ∇ℓ_i‖² of a probe, with its factor."""
    pairs = zip(problem.structured_parameters, _structured(probe.leaves, problem), strict=True)
    present = [(p, g) for p, g in pairs if g is not None]
    return squared_norm(times([g for _, g in present], [p for p, _ in present], diagonals))


def _structured(gradient: Sequence[Tensor | None], problem: Problem) -> list[Tensor | None]:
    """The gradient in the structured parameters."""
    return [g for g, s in zip(gradient, problem.structured, strict=True) if s]


def _sample_structures(
    first: FirstPass,
    problem: Problem,
    steps: _Steps,
    probes: Sequence[Probe],
    passes: Sequence[_Pass],
) -> list[SampleStructure]:
    """h of the probed samples from the same passes."""
    distances = steps.epsilon * steps.lengths.sqrt()
    structures = []
    for k, probe in enumerate(probes):
        i = probe.sample
        if steps.central:
            low = passes[1].samples[k]
        else:
            low = filled(_structured(over(probe.leaves, probe.factor), problem), steps.parameters)
        structure = scaled(plus(passes[0].samples[k], low, -1.0), float(steps.share))
        norm = _squared_norm(probe, problem, first.diagonals).sqrt() / probe.factor
        loss, unit = first.losses[i].abs(), first.gradients.unit
        error = expected_error(distances[i], loss, norm, unit, central=steps.central)
        structures.append(SampleStructure(i, structure, float(error)))
    return structures
