"""The exact diagonal of the Fisher matrix."""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher import PerSample
from f3eo.fisher.ghost import Squares
from f3eo.instruments.grouping import Name, names_of
from f3eo.instruments.labels import labels_named
from f3eo.instruments.norms import weights_of
from f3eo.instruments.passes import Data, problems
from f3eo.instruments.sums import add, zeros


@torch.enable_grad()
def diagonal(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    labels: str = "data",
    generator: Generator | None = None,
    memory: int = 2**28,
) -> dict[Name, Tensor]:
    """diag F = Σ_i ω_i ∇ℓ_i ∘ ∇ℓ_i, the mean of squared per-sample gradients.

    It is not the square of a batch's mean gradient, (Σ_i ω_i ∇ℓ_i)², which code for elastic weight
    consolidation often takes in its place: that one vanishes at a minimum, and is 1/B of this where
    gradients are independent noise. (Kirkpatrick et al. 2017, 1612.00796, eq. 3)

    A layer whose gradient is one outer product a sample gives Σ_i a_i² ⊗ b_i², one matrix product;
    of others, gradients are written out, some samples at a time. Measured in the mode that the
    model is in, which is left as it was.

    Args:
        model, closure, data, labels, generator: see `f3eo.instruments.trace`.
        memory: bytes that gradients written out may take at a time; default 256 MiB.

    Returns:
        For every trained parameter, by its name (its `id` where it has none), a tensor in its
        shape, in float64 on its device; in nats² per squared unit of θ. The sum of all is Tr F.

    Raises:
        ValueError, TypeError: see `f3eo.instruments.trace`; memory that is not positive.
    """
    chosen = labels_named(labels)
    estimator = PerSample(memory=memory)
    total, sums = 0.0, dict[Name, Tensor]()
    for problem in problems(model, closure, data, generator):
        ghost = estimator.record(problem, differentiable=False)
        names, weights = names_of(problem.model, problem.parameters), weights_of(ghost)
        if not sums:
            sums = {n: zeros(p) for n, p in zip(names, problem.parameters, strict=True)}
        total += float(weights.sum())
        for outputs, cotangent in chosen(ghost, generator):
            squares = ghost.forms(Squares(), outputs, _rooted(outputs, cotangent, weights))
            for name, p in zip(names, problem.parameters, strict=True):
                add(sums[name], squares.get(id(p)))
    return {name: value / total if total else value * torch.nan for name, value in sums.items()}


def _rooted(outputs: Tensor, cotangent: Tensor | None, weights: Tensor) -> Tensor:
    """√w_i c_i, so that squares of its gradients are weighted by w_i."""
    roots = weights.sqrt().to(outputs).view(-1, *[1] * (outputs.ndim - 1))
    return roots.expand_as(outputs) if cotangent is None else roots * cotangent
