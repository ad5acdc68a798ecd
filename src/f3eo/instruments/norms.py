"""Losses and gradient norms of every sample of some data, from one sweep."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher import Euclidean, Metric, PerSample
from f3eo.fisher.ghost import Ghost
from f3eo.instruments.grouping import Name, names_of
from f3eo.instruments.labels import labels_named
from f3eo.instruments.passes import Data, problems
from f3eo.instruments.sums import host
from f3eo.tensors import wide


@dataclass(frozen=True)
class NormsByParameter:
    """Of N samples, in the order of the data, and K parameters; float64 on the CPU.

    Args:
        names: of the parameters.
        losses: ℓ_i, (N,), in nats for a likelihood.
        weights: w_i, (N,); ones where the closure gives none.
        squared: ‖D ∇ℓ_i‖² in every parameter, (N, K).
    """

    names: list[Name]
    losses: Tensor
    weights: Tensor
    squared: Tensor


@torch.enable_grad()
def sample_norms(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    metric: Metric | None = None,
    labels: str = "data",
    generator: Generator | None = None,
) -> NormsByParameter:
    """Losses and norms of every sample; arguments as those of `f3eo.instruments.trace`."""
    chosen = labels_named(labels)
    estimator = PerSample(metric=metric or Euclidean())
    names: list[Name] = []
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for problem in problems(model, closure, data, generator):
        names = names or names_of(problem.model, problem.parameters)
        ghost = estimator.record(problem, differentiable=False)
        total = torch.zeros(len(ghost.losses), len(names), dtype=torch.float64)
        for outputs, cotangent in chosen(ghost, generator):
            total += by_parameter(ghost.norms(outputs, cotangent).by_leaf, ghost)
        columns.append((host(ghost.losses), weights_of(ghost), total))
    losses, weights, squared = (torch.cat(column) for column in zip(*columns, strict=True))
    return NormsByParameter(names, losses, weights, squared)


def by_parameter(by_leaf: dict[int, Tensor], ghost: Ghost) -> Tensor:
    """Values of every sample and parameter, (B, K); 0 where a parameter is not reached."""
    zeros = wide(torch.zeros_like(ghost.losses))
    columns = [by_leaf.get(id(p), zeros).to(zeros) for p in ghost.problem.parameters]
    return host(torch.stack(columns, 1))  # one transfer from the device


def weights_of(ghost: Ghost) -> Tensor:
    """w_i, (B,); ones where the closure gives none."""
    weights = ghost.output.shares.weights
    return host(torch.ones_like(ghost.losses) if weights is None else weights)
