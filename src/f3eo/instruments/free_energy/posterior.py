"""The interface of approximate posteriors, and what each of them measures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.fisher.metric import Metric
from f3eo.fisher.per_sample import PerSample
from f3eo.instruments.factors import recorded
from f3eo.instruments.free_energy.prior import Prior
from f3eo.instruments.free_energy.record import Energy
from f3eo.instruments.operator import Operator
from f3eo.instruments.passes import problems
from f3eo.shown import Shown

CURVATURES = ("gauss_newton", "fisher")


class Posterior(Shown, ABC):
    """q(θ), a Gaussian around the parameters θ as they are."""

    of: str
    """Curvature: "gauss_newton" or "fisher"."""

    priors: tuple[type, ...]
    """The priors whose divergence is known."""

    @abstractmethod
    def measure(self, operator: Operator, prior: Prior) -> Energy:
        """The free energy of all data.

        Args:
            operator: model, closure, batches and parameters, with the matrix `of`.
            prior: one of `priors`.
        """


@dataclass(frozen=True)
class Fit:
    """Losses and curvature of single samples.

    Args:
        losses: ℓ_i, (n,), float64, nats.
        traces: Tr(D G_i D), of ∇²ℓ_i or ∇ℓ_i ∇ℓ_iᵀ, (n,), float64; zeros where not asked for.
        weights: w_i, (n,), float64; 1 without weights.
    """

    losses: Tensor
    traces: Tensor
    weights: Tensor

    @property
    def samples(self) -> float:
        """N = Σ w_i."""
        return float(self.weights.sum())

    @property
    def curvature(self) -> float:
        """N Tr(D G D) = Σ_i w_i Tr(D G_i D)."""
        return float((self.weights * self.traces).sum())


def losses_of(operator: Operator) -> Fit:
    """The losses of all samples, by a forward pass."""
    losses, weights = list[Tensor](), list[Tensor]()
    for problem in problems(operator.model, operator.closure, operator.batches):
        output = evaluate(problem, per_sample=True, differentiable=False, enable_grad=False)
        own = output.losses.detach().double()
        losses.append(own)
        weights.append(torch.ones_like(own) if (w := output.shares.weights) is None else w.double())
    every = torch.cat(losses)
    return Fit(_finite(every), torch.zeros_like(every), torch.cat(weights))


def traces_of(operator: Operator, metric: Metric) -> Fit:
    """Losses and traces of all samples, exact (`f3eo.instruments.factors`)."""
    losses, traces, weights = list[Tensor](), list[Tensor](), list[Tensor]()
    recorder = PerSample(metric=metric)
    for problem in problems(operator.model, operator.closure, operator.batches):
        found = recorded(problem, operator.of, recorder)
        squares = [found.ghost.norms(found.outputs, c).squared for c in found.cotangents]
        losses.append(found.ghost.losses.detach().double())
        traces.append(torch.stack([s.detach().double() for s in squares]).sum(0))
        weights.append(found.weights)
    return Fit(_finite(torch.cat(losses)), _finite(torch.cat(traces)), torch.cat(weights))


def check_curvature(of: str) -> str:
    """Refuse a curvature that is no sum of squares.

    Raises:
        ValueError: it is unknown.
    """
    if of not in CURVATURES:
        raise ValueError(f"of is one of {', '.join(map(repr, CURVATURES))}, received {of!r}")
    return of


def entries(tensors: Sequence[Tensor]) -> int:
    """P, the number of entries of all tensors."""
    return sum(t.numel() for t in tensors)


def _finite(values: Tensor) -> Tensor:
    if not bool(values.isfinite().all()):
        raise FloatingPointError(
            "losses or gradients of single samples are not finite: look at the data and the "
            "parameters"
        )
    return values
