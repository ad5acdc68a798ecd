"""A check of finite differences: h of single samples against double backward."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.residuals import outputs_of, residuals
from f3eo.curvature.guard import Differs, lacks_second_derivative
from f3eo.fisher.metric import Diagonals, times
from f3eo.fisher.quantity import Quantity
from f3eo.tensors import filled, over, plus, scaled, squared_norm, wide

logger = logging.getLogger("f3eo")

CHECKED = 2
"""Samples whose h is compared with double backward in a check."""

TOLERANCE = 0.05
"""Relative error of one sample's h above which it is wrong, or 20 times the expected one if that
is more."""


@dataclass(frozen=True)
class SampleStructure:
    """The structure gradient of one sample by finite differences.

    Args:
        sample: i.
        structure: a_i ‖D ∇ℓ_i‖^(p−2) H_i D² ∇ℓ_i, a tensor per structured parameter.
        error: expected relative error.
    """

    sample: int
    structure: list[Tensor]
    error: float


def refuse_wrong_structure(
    measured: Sequence[SampleStructure],
    replay: Replay[Any],
    problem: Problem,
    quantity: Quantity,
    diagonals: Diagonals,
) -> None:
    """Compare h of single samples with double backward.

    Args:
        measured: h of these samples.
        replay: runs the closure in the surroundings of the first pass.
        problem: closure, batch and parameters.
        quantity: p, a_i, and whether ∂ℓ/∂f is held.
        diagonals: D.

    Raises:
        Differs: one is wrong.
    """
    samples = [item.sample for item in measured]
    try:
        exact = replay.rerun(lambda: exact_structures(problem, samples, quantity, diagonals))
    except (RuntimeError, NotImplementedError) as error:
        if not lacks_second_derivative(error):
            raise
        logger.info("h is not checked, the closure has no second derivative: %s", error)
        return
    for item, expected in zip(measured, exact, strict=True):
        if item.error < TOLERANCE and _is_wrong(item, expected):
            raise Differs(
                f"h of sample {item.sample} is not what double backward gives (an operation whose "
                f"backward is not its derivative, a hook on gradients)"
            )


def exact_structures(
    problem: Problem, samples: Sequence[int], quantity: Quantity, diagonals: Diagonals
) -> list[list[Tensor]]:
    """a_i ‖D ∇ℓ_i‖^(p−2) H_i D² ∇ℓ_i of single samples by plain double backward, without recording.

    Args:
        problem: closure, batch and parameters.
        samples: the indices i.
        quantity: p, a_i, and whether ∂ℓ/∂f is held.
        diagonals: D.
    """
    losses = evaluate(problem, per_sample=True, differentiable=True).losses
    scale = 1.0 if problem.factor == 1 else problem.factor / len(losses)
    seed = None if scale == 1 else losses.new_tensor(scale)
    outputs = outputs_of(losses) if quantity.hold_residuals else None
    parameters = problem.structured_parameters
    structures = []
    for i in samples:
        roots, cotangents = [losses[i]], None if seed is None else [seed]
        if outputs is not None:
            roots, cotangents = outputs, residuals(losses[i], outputs, seed)
        gradient = torch.autograd.grad(
            roots, parameters, cotangents, create_graph=True, allow_unused=True
        )
        pairs = zip(parameters, gradient, strict=True)
        present = [(p, g) for p, g in pairs if g is not None]
        once = times([g.detach() for _, g in present], [p for p, _ in present], diagonals)
        if seed is not None:
            once = scaled([*map(wide, once)], 1 / scale)
        along = times(once, [p for p, _ in present], diagonals)
        factor = quantity.factors(squared_norm(once).view(1), losses.detach()[i : i + 1])
        if factor is not None:
            along = scaled(along, float(factor))
        back = 1.0
        if seed is not None:  # in float16 from a vector of length 1, and back afterwards
            length = float(squared_norm(along).sqrt()) or 1.0
            along, back = scaled(along, 1 / length), scale / length
        # A gradient that is constant in the parameters has no graph, but counts in the norm.
        bent = [(g, v.to(g)) for (_, g), v in zip(present, along, strict=True) if g.requires_grad]
        product: Sequence[Tensor | None] = [None] * len(parameters)
        if bent:
            gradients, vectors = zip(*bent, strict=True)
            product = torch.autograd.grad(
                gradients, parameters, vectors, allow_unused=True, retain_graph=True
            )
        product = product if back == 1 else over(product, back)
        structures.append(filled(product, parameters))
    return structures


def _is_wrong(measured: SampleStructure, exact: Sequence[Tensor]) -> bool:
    length = float(squared_norm(list(exact)).sqrt())
    error = float(squared_norm(plus(measured.structure, list(exact), -1.0)).sqrt())
    return error > max(TOLERANCE, 20 * measured.error) * length
