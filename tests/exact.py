"""Holds the per-sample estimator with both engines against the loop over single samples."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dense import flat, relative, truth
from f3eo import DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem

ENGINES = ((DoubleBackward(), 1e-9), (FiniteDifference(), 1e-5))
"""And the largest relative error of h in float64."""


def check(
    model: nn.Module,
    closure: Callable[..., Tensor],
    *batch: Tensor,
    written_out: Callable[..., Tensor] | None = None,
    memory: int = 2**28,
) -> None:
    """Assert that ∇L, Tr F and h = ½∇Tr F are those of the loop, to 1e-9.

    With finite differences h is theirs to 1e-5.

    `written_out` is the same loss for the loop, where torch cannot differentiate it twice.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = truth(parameters, written_out or closure, *batch)
    problem = Problem(closure, batch, parameters, [True] * len(parameters), model)
    for engine, tolerance in ENGINES:
        found = PerSample(engine, memory=memory, power=2).gradients(problem)
        gradient = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(parameters, found.gradient, strict=True)
        ]
        assert relative(flat(gradient), expected.gradient) < 1e-9
        assert relative(found.trace, expected.trace) < 1e-9
        assert relative(flat(found.structure), expected.structure) < tolerance
