"""The interface of every estimator of the Fisher trace and of its gradient.

The estimand, the factor and the sign, once for the whole package:

    Tr F = (1/B) Σ_i ‖∇ℓ_i‖²        (empirical: observed labels; true: labels drawn from the model)
    structure gradient h = ½ ∇ Tr F = (1/B) Σ_i H_i ∇ℓ_i

ℓ_i is a negative log-probability, to be made small, and the update descends both L and Tr F: the
weights move along −∇L and −h. The factor 2 of ∇‖v‖² = 2 H v is left out of h everywhere.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.evaluation import Problem, check_reached, evaluate


@dataclass(frozen=True)
class Gradients:
    """What an estimator measured on one batch, everything detached.

    Args:
        loss: mean loss L, a scalar.
        samples: B.
        gradient: ∇L, a tensor per parameter, None where the loss does not depend on it.
        structure: h = ½∇Tr F, a tensor per structured parameter; None if not measured.
        trace: the estimate of Tr F, a scalar; None if not measured.
    """

    loss: Tensor
    samples: int
    gradient: list[Tensor | None]
    structure: list[Tensor] | None
    trace: Tensor | None

    def merged(self, other: "Gradients") -> "Gradients":
        """Both batches as one: means weighted by their numbers of samples."""
        total = self.samples + other.samples
        a, b = self.samples / total, other.samples / total
        return Gradients(
            loss=a * self.loss + b * other.loss,
            samples=total,
            gradient=[
                _mean(x, y, a, b) for x, y in zip(self.gradient, other.gradient, strict=True)
            ],
            structure=None
            if self.structure is None or other.structure is None
            else [a * x + b * y for x, y in zip(self.structure, other.structure, strict=True)],
            trace=None
            if self.trace is None or other.trace is None
            else a * self.trace + b * other.trace,
        )


def _mean(x: Tensor | None, y: Tensor | None, a: float, b: float) -> Tensor | None:
    if x is None or y is None:
        return a * x if x is not None else b * y if y is not None else None
    return a * x + b * y


class Estimator(ABC):
    """An estimate of Tr F from one batch, its gradient and ∇L, in as few passes as it can."""

    additive: bool
    """The estimate is a mean over samples: micro-batches, parts and processes add up."""

    per_sample: bool = True
    """Needs per-sample losses; otherwise a scalar loss will do."""

    forwards: float
    """Cost of `gradients` in forward passes; a plain gradient costs 3."""

    @abstractmethod
    def gradients(self, problem: Problem) -> Gradients:
        """∇L, ½∇Tr F and Tr F on the problem's batch."""

    @abstractmethod
    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Per-sample losses (B,) and Tr F (scalar), both attached to the graph."""


def chosen(problem: Problem) -> list[Tensor]:
    """The structured parameters."""
    return [p for p, s in zip(problem.parameters, problem.structured, strict=True) if s]


def plain_gradient(problem: Problem, *, per_sample: bool) -> Gradients:
    """∇L alone, as `losses.mean().backward()` would give it, bit for bit."""
    losses = evaluate(problem, per_sample=per_sample, twice=False).losses
    loss = losses.mean()
    gradient = torch.autograd.grad(loss, problem.parameters, allow_unused=True)
    check_reached(gradient, problem.parameters)
    return Gradients(loss.detach(), len(losses), list(gradient), None, None)


def structure_gradient(trace: Tensor, problem: Problem) -> list[Tensor]:
    """h = ½∇Tr F by one backward pass; releases the graph."""
    parameters = chosen(problem)
    if not trace.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    half = torch.full_like(trace, 0.5)
    return list(
        torch.autograd.grad(trace, parameters, half, allow_unused=True, materialize_grads=True)
    )
