"""The true Fisher trace: labels from the model instead of the data."""

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.likelihood import Likelihood
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature import DoubleBackward
from f3eo.fisher.estimator import Estimator, Gradients, structure_gradient
from f3eo.fisher.ghost import Ghost
from f3eo.fisher.mini_batch import attached_gradient
from f3eo.fisher.per_sample import PerSample
from f3eo.fisher.signs import Sign
from f3eo.tensors import inner


class ModelSampled(Estimator):
    """Tr F = E_x E_{ŷ~p_θ}‖∇ℓ(x, ŷ)‖² = Tr GGN, value and gradient unbiased.

    The closure returns a likelihood. F = Jᵀ S Sᵀ J with J the Jacobian of its parameters f (logits,
    means) and S Sᵀ = E_ŷ[∇_f ℓ ∇_f ℓᵀ]. With signs ε = ±1 that do not depend on θ, E‖Jᵀ S ε‖² =
    Tr F for every θ, so its gradient is unbiased if it also flows through S(θ). Drawing ŷ and
    differentiating ‖∇ℓ(ŷ)‖² with ŷ held fixed would miss the score term E[∇log p(ŷ) ‖·‖²].

    Args:
        over: `PerSample(power=2)` (default; exact over samples) or `Sign()` (any architecture; the
            signs of the samples are those of ε). By double backward, whatever its engine.
        probes: draws of ε to average; None sums over all columns of S, exact, as many passes as one
            sample has logits.

    Raises:
        ValueError: probes below one, or an `over` that has no form here (finite differences
            included: Jᵀ S(θ) ε is no gradient field).
    """

    additive = True

    def __init__(self, over: PerSample | Sign | None = None, *, probes: int | None = 1) -> None:
        over = over or PerSample(power=2)
        if probes is not None and probes < 1:
            raise ValueError(f"ModelSampled needs probes >= 1 or None (exact), received {probes}")
        if isinstance(over, Sign) and not isinstance(over.engine, DoubleBackward):
            raise ValueError(
                f"ModelSampled over Sign needs engine=DoubleBackward(), received "
                f"{type(over.engine).__name__}: the sampled vector field is no gradient, finite "
                f"differences would give the wrong product"
            )
        if isinstance(over, Sign) and (over.balanced or probes is None):
            raise ValueError(
                "ModelSampled over Sign draws its signs with the labels: balanced=True and "
                "probes=None have no meaning there; use over=PerSample(power=2)"
            )
        if isinstance(over, PerSample) and over.power != 2:
            raise ValueError(
                f"ModelSampled needs power=2, the trace: PerSample(power=2); received {over.power}"
            )
        self.over = over
        self.probes = probes
        # ∇L by a backward pass of its own (2), then per probe: δ (1) or the gradient (2), and the
        # backward pass through both (4, or 6 with weight gradients in it).
        each = 5.0 if isinstance(over, PerSample) else 8.0
        self.forwards = 3.0 + each * (probes or 1)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        output, trace = self._measured(problem)
        loss = output.mean()
        gradient = torch.autograd.grad(
            loss, problem.parameters, retain_graph=True, allow_unused=True
        )
        return Gradients(
            loss=loss.detach(),
            weight=output.shares.total,
            gradient=list(gradient),
            structure=structure_gradient(trace, problem),
            trace=trace.detach(),
        )

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`."""
        output, trace = self._measured(problem)
        return output.shares.rescale(output.losses), trace

    def _measured(self, problem: Problem) -> tuple[Output, Tensor]:
        """What the closure gave, and Tr F, both attached to the graph."""
        if isinstance(self.over, PerSample):
            ghost = self.over.capture(problem)
            likelihood = _likelihood(ghost.output.likelihood)
            return ghost.output, self._ghost_trace(ghost, likelihood, problem)
        output = evaluate(problem, per_sample=True, differentiable=True)
        likelihood = _likelihood(output.likelihood)
        draws = []
        for _ in range(self.probes or 1):
            root = likelihood.root(likelihood.noise(problem.generator))
            # √ω_i in front of sample i: the cross terms of the square have no mean.
            scale = output.shares.as_tensor(output.losses).sqrt().view(-1, *[1] * (root.ndim - 1))
            vector = attached_gradient(likelihood.parameters, problem, scale * root)
            draws.append(inner(vector, vector))
        return output, torch.stack(draws).mean()

    def _ghost_trace(self, ghost: Ghost, likelihood: Likelihood, problem: Problem) -> Tensor:
        f = likelihood.parameters
        exact = self.probes is None
        noises = (
            likelihood.basis()
            if exact
            else (likelihood.noise(problem.generator) for _ in range(self.probes or 1))
        )
        average = ghost.output.shares.mean_or_zero
        sums = [average(ghost.norms(f, likelihood.root(noise)).squared) for noise in noises]
        return torch.stack(sums).sum() if exact else torch.stack(sums).mean()


def _likelihood(likelihood: Likelihood | None) -> Likelihood:
    if likelihood is None:
        raise TypeError(
            "ModelSampled draws labels: the closure must return a likelihood, Categorical(logits, "
            "targets) or Gaussian(mean, targets, std), not losses"
        )
    return likelihood
