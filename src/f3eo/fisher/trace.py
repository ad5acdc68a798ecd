"""The Fisher trace as a number and as a term of a loss."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure, Problem
from f3eo.fisher.estimator import Estimator
from f3eo.fisher.per_sample import PerSample


def fisher_trace(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    *batch: Any,
    estimator: Estimator | None = None,
    generator: torch.Generator | None = None,
    differentiable: bool = True,
) -> tuple[Tensor, Tensor]:
    """Per-sample losses and Tr F = (1/B) Σ_i ‖∇ℓ_i‖² (`f3eo.fisher.estimand`).

    `(losses.mean() + 0.5 * strength * trace).backward()` in a training loop of your own is a
    gradient penalty, with ∇(½ Tr F) = (1/B) Σ_i H_i ∇ℓ_i. The trace can be differentiated once.
    (f3eo-theory, "Trace Trick")

    Args:
        model: a module, or its parameters; those that require no gradient do not count.
        closure: called with `batch`; returns per-sample losses or a likelihood.
        batch: tensors, or nestings of them, with the samples in dimension 0.
        estimator: default `PerSample()`, which is exact; the trace is the same for every power.
        generator: source of random signs and labels, for estimators that draw.
        differentiable: attach both results to the graph, the default. `False` gives the numbers
            alone: no graph of the gradient is built, and fused kernels stay in use.

    Returns:
        Losses (B,) and trace (scalar, 0 for an empty batch), under `no_grad()` too.

    Raises:
        ValueError, TypeError: the closure or the model does not fit; the message names the cure.
    """
    module = model if isinstance(model, nn.Module) else None
    parameters = list(model.parameters() if isinstance(model, nn.Module) else model)
    parameters = [p for p in parameters if p.requires_grad]
    if not parameters:
        raise ValueError("fisher_trace needs at least one parameter with requires_grad=True")
    problem = Problem(closure, batch, parameters, [True] * len(parameters), module, generator)
    with torch.enable_grad():
        return (estimator or PerSample()).trace(problem, differentiable=differentiable)
