"""The interface of every estimator of the Fisher trace and of its gradient.

The estimand, the factor and the sign, once for the whole package:

    Tr F = (1/B) Σ_i ‖∇ℓ_i‖²        (empirical: observed labels; true: labels drawn from the model)
    structure gradient h = (1/p) ∇ (1/B) Σ_i ‖∇ℓ_i‖^p = (1/B) Σ_i ‖∇ℓ_i‖^(p−2) H_i ∇ℓ_i

p is the estimator's power. At p = 2 that is ½∇Tr F, as of every estimator but `PerSample`, whose
default is p = 1, the mean of the norms themselves. What is reported as the trace is Tr F for all.

ℓ_i is a negative log-probability, to be made small, and the update descends both L and the mean:
the weights move along −∇L and −h. The factor p of ∇‖v‖^p = p ‖v‖^(p−2) H v is left out of h.
Where samples have weights, ω_i stands for 1/B (`f3eo.closure.weighted`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached, evaluate
from f3eo.closure.problem import Problem
from f3eo.shown import Shown
from f3eo.tensors import plus, scaled


@dataclass(frozen=True)
class Gradients:
    """What an estimator measured on one batch, everything detached.

    Args:
        loss: mean loss L, a scalar.
        weight: Σ w_i of the samples (`closure/weighted.py`), a scalar; B where all count the same.
        gradient: ∇L, a tensor per parameter, None where the loss does not depend on it.
        structure: h, a tensor per structured parameter; None if not measured.
        trace: the estimate of Tr F, a scalar; None if not measured.
        error: the expected relative error of h by rounding and differences, a scalar; None if it is
            not known.
    """

    loss: Tensor
    weight: Tensor | int
    gradient: list[Tensor | None]
    structure: list[Tensor] | None
    trace: Tensor | None
    error: Tensor | None = None

    def merged(self, other: "Gradients") -> "Gradients":
        """Both batches as one: means weighted by what their samples count."""
        total = self.weight + other.weight
        a, b = self.weight / total, other.weight / total
        both = self.structure is not None and other.structure is not None
        traced = self.trace is not None and other.trace is not None
        return Gradients(
            loss=_counted(a, self.loss) + _counted(b, other.loss),
            weight=total,
            gradient=_mean(self.gradient, other.gradient, a, b),
            structure=_mean(self.structure, other.structure, a, b) if both else None,  # pyright: ignore
            trace=a * self.trace + b * other.trace if traced else None,  # pyright: ignore
            error=max((e for e in (self.error, other.error) if e is not None), default=None),
        )


def _mean(
    x: Sequence[Tensor | None], y: Sequence[Tensor | None], a: Tensor | float, b: Tensor | float
) -> list[Tensor | None]:
    """a·x + b·y, what is missing being zero; missing where both are."""
    pairs = list(zip(x, y, strict=True))
    present = [(u, v) for u, v in pairs if u is not None and v is not None]
    us, vs = [u for u, _ in present], [v for _, v in present]
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        sums = iter(_counted(a, u) + _counted(b, v) for u, v in present)
    else:
        sums = iter(plus(scaled(us, a), vs, b))

    def merged(u: Tensor | None, v: Tensor | None) -> Tensor | None:
        if u is not None and v is not None:
            return next(sums)
        return _counted(a, u) if u is not None else _counted(b, v) if v is not None else None

    return [merged(u, v) for u, v in pairs]


def _counted(share: Tensor | float, value: Tensor) -> Tensor:
    """share · value, and 0 for a share of 0, where a mean is not defined."""
    if not isinstance(share, Tensor):
        return share * value
    share = share.to(value)
    return torch.where(share == 0, 0, share * value)


class Estimator(Shown, ABC):
    """An estimate of Tr F from one batch, its gradient and ∇L, in as few passes as it can."""

    additive: bool
    """The estimate is a mean over samples: micro-batches, parts and processes add up."""

    per_sample: bool = True
    """Needs per-sample losses; otherwise a scalar loss will do."""

    power: float = 2.0
    """p of the norms ‖∇ℓ_i‖^p whose mean h descends; 2 is the trace."""

    forwards: float
    """Cost of `gradients` in forward passes; a plain gradient costs 3."""

    @abstractmethod
    def gradients(self, problem: Problem) -> Gradients:
        """∇L, h and Tr F on the problem's batch."""

    @abstractmethod
    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Per-sample losses (B,) whose mean is L, and Tr F (scalar), both attached to the graph."""

    def counters(self) -> Mapping[str, int]:
        """What `forget` does not, by name; saved with the optimizer."""
        return {}

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Check anew what was found on earlier batches, if anything is kept of them.

        Args:
            counters: what `counters` once gave; default none.
        """

    def loss_gradient(self, problem: Problem) -> Gradients:
        """∇L alone."""
        return plain_gradient(problem, per_sample=self.per_sample)

    def gradients_on_part(self, problem: Problem, inside: Tensor, outside: Tensor) -> Gradients:
        """∇L on the whole batch; h and Tr F on the samples `inside`.

        Args:
            problem: closure, batch and parameters.
            inside, outside: indices, int64, together every sample once.
        """
        measured = self.gradients(problem.part(inside))
        if not len(outside):
            return measured
        whole = measured.merged(self.loss_gradient(problem.part(outside)))
        return replace(
            whole, structure=measured.structure, trace=measured.trace, error=measured.error
        )


def in_order(totals: Mapping[int, Tensor], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """The totals of these parameters, each in its dtype."""
    found = [totals.get(id(p)) for p in parameters]
    return [None if t is None else t.to(p.dtype) for t, p in zip(found, parameters, strict=True)]


def chosen(problem: Problem) -> list[Tensor]:
    """The structured parameters."""
    return [p for p, s in zip(problem.parameters, problem.structured, strict=True) if s]


def plain_gradient(problem: Problem, *, per_sample: bool) -> Gradients:
    """∇L alone, as `losses.mean().backward()` would give it, bit for bit."""
    output = evaluate(problem, per_sample=per_sample, differentiable=False)
    loss = output.mean()
    gradient = torch.autograd.grad(loss, problem.parameters, allow_unused=True)
    check_reached(gradient, problem.parameters)
    return Gradients(loss.detach(), output.shares.total, list(gradient), None, None)


def structure_gradient(trace: Tensor, problem: Problem) -> list[Tensor]:
    """½∇ of Tr F, or of (2/p) times the mean of ‖∇ℓ_i‖^p, by one backward pass; frees the graph."""
    parameters = chosen(problem)
    if not trace.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    half = torch.full_like(trace, 0.5)
    return list(
        torch.autograd.grad(trace, parameters, half, allow_unused=True, materialize_grads=True)
    )
