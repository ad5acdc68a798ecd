"""The interface of every estimator; `f3eo.fisher.estimand` defines what they estimate."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached, evaluate
from f3eo.closure.problem import Problem
from f3eo.fisher.estimand import Gradients
from f3eo.shown import Shown
from f3eo.tensors import over


class Estimator(Shown, ABC):
    """Estimates ∇L, Tr F and h from one batch (`f3eo.fisher.estimand`)."""

    additive: bool
    """Whether estimates are means over samples: those of parts merge into that of the whole."""

    per_sample: bool = True
    """Whether the closure must return per-sample losses; otherwise a scalar loss will do."""

    power: float = 2.0
    """p, the power of the norms ‖∇ℓ_i‖^p whose mean h descends; 2 is the trace."""

    measures_squares: bool = False
    """Whether `gradients` gives `Gradients.squares` to a problem that asks for them."""

    sharded: bool = False
    """Whether it differentiates a model that `fully_shard` has sharded, on all processes at once;
    its estimates are then those of the batches of all."""

    relative: bool = False
    """Whether norms are in the units of the parameters (`f3eo.fisher.metric`), so that they do not
    depend on these."""

    forwards: float
    """Cost of `gradients` in forward passes; a plain gradient costs 3."""

    @abstractmethod
    def gradients(self, problem: Problem) -> Gradients:
        """Estimate ∇L, h and Tr F on the problem's batch."""

    @abstractmethod
    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """Estimate Tr F alone.

        Args:
            problem: closure, batch and parameters.
            differentiable: attach both results to the graph; otherwise they are detached, and no
                graph of the gradient is built.

        Returns:
            Losses (B,) whose plain mean is L, and Tr F, a scalar.
        """

    def size(self, parameters: Sequence[Tensor]) -> int:
        """P, the number of entries of these structured parameters that the trace is over."""
        return sum([p.numel() for p in parameters])

    def counters(self) -> Mapping[str, int]:
        """The counts that are saved with the optimizer, by name."""
        return {}

    def adopt(self, counters: Mapping[str, int]) -> None:
        """Go on with these counts, and with all else that was learned.

        Args:
            counters: the largest of several processes', with the names of `counters`.
        """

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Drop what was learned on earlier batches, but for the counters.

        Args:
            counters: as `counters` returned them; default none.
        """

    def check(self, problem: Problem) -> None:
        """Refuse what this estimator does not measure, before the closure is called.

        Args:
            problem: closure, batch and parameters.
        """

    def agreed(self, problem: Problem, answer: bool) -> bool:
        """Whether any process that measures this problem answers yes; here there is one.

        Args:
            problem: closure, batch and parameters.
            answer: of this process.
        """
        return answer

    def loss_gradient(self, problem: Problem) -> Gradients:
        """Compute ∇L alone."""
        return plain_gradient(problem, per_sample=self.per_sample)

    def gradients_on_part(self, problem: Problem, inside: Tensor, outside: Tensor) -> Gradients:
        """Compute ∇L on the whole batch, and estimate h and Tr F on a part of it.

        Args:
            problem: closure, batch and parameters.
            inside: indices of the part, int64.
            outside: indices of all other samples, int64.
        """
        part = self.gradients(problem.part(inside))
        if not len(outside):
            return part
        whole = part.merged(self.loss_gradient(problem.part(outside)))
        norms = None if part.norms is None else part.norms.standing_for(whole.weight)
        measured = {n: getattr(part, n) for n in ("structure", "trace", "error", "squares")}
        return replace(whole, **measured, norms=norms)


def plain_gradient(problem: Problem, *, per_sample: bool) -> Gradients:
    """Compute ∇L alone, bit for bit that of `losses.mean().backward()`."""
    output = evaluate(problem, per_sample=per_sample, differentiable=False)
    loss, weight = output.mean(), output.shares.total
    factor = 1.0 if problem.scale is None else problem.scale.factor
    along = None if factor == 1 else torch.full_like(loss, factor)
    gradient = torch.autograd.grad(loss, problem.parameters, along, allow_unused=True)
    check_reached(gradient, problem.parameters)
    gradient = gradient if along is None else over(gradient, factor)
    return Gradients(loss.detach(), weight, list(gradient), None, None)
