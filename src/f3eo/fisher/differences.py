"""h by differences of gradients: every sample once more, at weights moved along its own gradient.

h = Σ_i ω_i (∇ℓ_i(θ + s_i ∇ℓ_i) − ∇ℓ_i(θ)) ‖∇ℓ_i‖^(p−2)/s_i,    s_i = ε ‖∇ℓ_i‖^(p−2)
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.closure.snapshot import Replay
from f3eo.curvature import FiniteDifference
from f3eo.curvature.finite_difference import above_rounding
from f3eo.curvature.guard import OTHER_LOSSES, Differs, failed_again, no_second_derivative
from f3eo.fisher.accuracy import LIMIT, expected_error, width
from f3eo.fisher.estimator import Gradients, chosen, in_order
from f3eo.fisher.ghost import FirstPass, Ghost
from f3eo.fisher.ghost.evidence import Probe
from f3eo.fisher.ghost.second_pass.replay import SecondPass
from f3eo.fisher.ghost.second_pass.shifted import Shifted
from f3eo.fisher.guard import TOLERANCE, apart, exact_products, mismatch
from f3eo.tensors import filled, plus, scaled, squared_norm

logger = logging.getLogger("f3eo")

CHECKED = 2
"""Samples whose h is held against double backward in a check."""


class Coarse(Exception):
    """Differences would err by more than `LIMIT`."""


@dataclass(frozen=True)
class _Moved:
    """A second pass: Σ ω_i ∇ℓ_i/ε, ∇ℓ_i of the samples that are checked, and all losses."""

    gradient: list[Tensor]
    single: list[list[Tensor]]
    losses: Tensor


def differences(
    replay: Replay[Ghost],
    first: FirstPass,
    problem: Problem,
    engine: FiniteDifference,
    power: float,
    *,
    coarse: bool = False,
) -> Gradients:
    """∇L and Tr F of the first pass, and h by a second (or two, central).

    Args:
        replay: runs the closure in the surroundings of the first pass.
        first: what was kept of it.
        problem: closure, batch and parameters.
        engine: how wide the differences are.
        power: p.
        coarse: whether they are taken though double backward would be more exact.

    Raises:
        Coarse: it would, and the engine has no step of its own.
        Differs: the second pass is another function, or h is not what double backward gives.
    """
    parameters, shares, found = chosen(problem), first.shares, first.gradients
    squared = shares.own(found.squared)
    own = None if power == 2 else torch.where(squared > 0, squared, torch.inf) ** (power / 2 - 1)
    moves = squared if own is None else own.square() * squared  # squared lengths, over ε²
    wide = width(engine, parameters, first.losses, squared.sqrt(), shares, found.unit)
    heeded = not (coarse or problem.repeatable or engine.step is not None)
    if heeded and float(wide.error) > LIMIT:
        raise Coarse
    length = shares.average(moves).sqrt()
    size = wide.distance / torch.where(length == 0, 1, length)  # ε
    # Not finite where Tr F̂ overflows; h then is not either.
    share = 1 / (2 * size if engine.central else size)
    single_use = set() if engine.central else first.tape.single_use
    checked = _telling(first.probes, problem)

    def moved(epsilon: Tensor) -> _Moved:
        step = shares.divided(epsilon) if own is None else shares.divided(epsilon) * own
        weights = {
            id(p): Shifted(p, found.terms[id(p)], step, single_use=id(p) in single_use)
            for p in parameters
            if id(p) in found.terms
        }
        mode = SecondPass(first.tape, weights)
        losses = evaluate(problem, per_sample=True, differentiable=False, mode=mode).losses
        single = [_gradient(losses[p.sample], parameters, retain=True) for p in checked]
        cotangent = shares.like(losses, share)
        return _Moved(_gradient(losses, parameters, cotangent), single, losses.detach())

    passes = [_again(replay, moved, size)]
    if engine.central:
        passes.append(_again(replay, moved, -size))
    if not problem.repeatable:
        rise = size * (squared if own is None else own * squared)  # s_i ‖∇ℓ_i‖
        for sign, second in zip((1, -1), passes, strict=False):
            apart_by = mismatch(first.losses, second.losses, sign * rise, wide.moved, found.unit)
            if float(apart_by) > 1:
                raise Differs(OTHER_LOSSES)
        if checked:
            distances = size * moves.sqrt()
            _check(replay, problem, first, checked, passes, share, distances, engine, power)
    if engine.central:
        structure = plus(passes[0].gradient, passes[1].gradient, -1.0)
    else:
        low = filled(in_order(found.totals, parameters), parameters)
        structure = [
            torch.addcmul(h, g, share, value=-1)
            for h, g in zip(passes[0].gradient, low, strict=True)
        ]
    trace = shares.trace(found.squared)
    return Gradients(
        loss=shares.mean(first.losses),
        weight=shares.total,
        gradient=in_order(found.totals, problem.parameters),
        structure=above_rounding(structure, found.unit * trace.sqrt() * share),
        trace=trace,
        error=wide.error,
    )


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


def _again(replay: Replay[Ghost], moved, size: Tensor) -> _Moved:
    try:
        return replay.once_more(lambda: moved(size))
    except Exception as error:  # whatever it was, the first pass had none
        raise failed_again(error) from error


def _telling(probes: Sequence[Probe], problem: Problem) -> list[Probe]:
    """Probes with the longest gradients, whose h is compared."""
    lengths = {
        probe.sample: float(squared_norm([g for g in _structured(probe, problem) if g is not None]))
        for probe in probes
    }
    longest = sorted(probes, key=lambda probe: -lengths[probe.sample])
    return [probe for probe in longest if lengths[probe.sample] > 0][:CHECKED]


def _structured(probe: Probe, problem: Problem) -> list[Tensor | None]:
    return [g for g, s in zip(probe.leaves, problem.structured, strict=True) if s]


def _check(
    replay: Replay[Ghost],
    problem: Problem,
    first: FirstPass,
    checked: Sequence[Probe],
    passes: Sequence[_Moved],
    share: Tensor,
    distances: Tensor,
    engine: FiniteDifference,
    power: float,
) -> None:
    """Hold h of single samples against double backward.

    Raises:
        Differs: one is another.
    """
    samples = [probe.sample for probe in checked]
    try:
        exact = replay.once_more(lambda: exact_products(problem, samples, power))
    except (RuntimeError, NotImplementedError) as error:
        if not no_second_derivative(error):
            raise
        logger.info("h is not checked, the closure has no second derivative: %s", error)
        return
    parameters = chosen(problem)
    for k, probe in enumerate(checked):
        low = (
            passes[1].single[k]
            if engine.central
            else filled(_structured(probe, problem), parameters)
        )
        h = scaled(plus(passes[0].single[k], low, -1.0), float(share))
        norm = squared_norm([g for g in _structured(probe, problem) if g is not None]).sqrt()
        expected = float(
            expected_error(
                distances[probe.sample],
                first.losses[probe.sample].abs(),
                norm,
                first.gradients.unit,
                central=engine.central,
            )
        )
        if expected < TOLERANCE and apart(h, exact[k], expected):
            raise Differs(
                f"h of sample {probe.sample} is not what double backward gives (an operation whose "
                f"backward is not its derivative, a hook on gradients)"
            )
