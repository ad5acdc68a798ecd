"""The true Fisher trace: labels from the model instead of the data."""

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.likelihood import Likelihood
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature import DoubleBackward
from f3eo.fisher.emphasis import Uniform
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.estimator import Estimator
from f3eo.fisher.ghost import Ghost
from f3eo.fisher.parameters import structure_gradient, structured_gradient
from f3eo.fisher.per_sample import PerSample
from f3eo.fisher.signs import Sign
from f3eo.tensors import inner


class ModelSampled(Estimator):
    """Tr F = E_x E_{ŷ~p_θ}‖∇ℓ(x, ŷ)‖² = Tr GGN, its value and its gradient unbiased.

    The closure returns a likelihood with parameters f (logits, means). With J = ∂f/∂θ and a root S
    of its Fisher matrix in f, S Sᵀ = E_ŷ[∇_f ℓ ∇_f ℓᵀ], F = Jᵀ S Sᵀ J. Signs ε = ±1 that do not
    depend on θ give E‖Jᵀ S ε‖² = Tr F for every θ, so its gradient is unbiased if it also flows
    through S(θ). To draw ŷ and differentiate ‖∇ℓ(ŷ)‖² with ŷ held fixed would omit the score term
    E[∇log p(ŷ) ‖·‖²].

    Args:
        over: `PerSample(power=2)` (default; exact over samples) or `Sign()` (any architecture; ε
            also holds the signs of the samples). Double backward, whatever its engine.
        probes: number of draws of ε to average; None sums over all columns of S, which is exact
            and takes as many passes as one sample has logits.

    Raises:
        ValueError: probes below one, or an `over` that does not apply; finite differences do not,
            since Jᵀ S(θ) ε is no gradient field.
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
        if isinstance(over, PerSample) and (
            over.hold_residuals or not isinstance(over.emphasis, Uniform)
        ):
            raise ValueError(
                f"ModelSampled draws labels and has no losses to hold or to weigh samples by: use "
                f"hold_residuals=False and emphasis=Uniform(), received {over!r}"
            )
        self.over = over
        self.probes = probes
        # ∇L by a backward pass of its own (2), then per probe: δ (1) or the gradient (2), and the
        # backward pass through both (4, or 6 with weight gradients in it).
        each = 5.0 if isinstance(over, PerSample) else 8.0
        self.forwards = 3.0 + each * (probes or 1)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        output, trace = self._estimate(problem, differentiable=True)
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

    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`."""
        output, trace = self._estimate(problem, differentiable=differentiable)
        losses = output.shares.rescale(output.losses)
        return (losses, trace) if differentiable else (losses.detach(), trace.detach())

    def _estimate(self, problem: Problem, *, differentiable: bool) -> tuple[Output, Tensor]:
        """What the closure returned, and Tr F; both attached to the graph if differentiable."""
        if isinstance(self.over, PerSample):
            recording = self.over.record(problem, differentiable=differentiable)
            return recording.output, self._over_samples(recording, problem)
        output = evaluate(problem, per_sample=True, differentiable=differentiable)
        return output, self._over_signs(output, problem, differentiable=differentiable)

    def _over_samples(self, recording: Ghost, problem: Problem) -> Tensor:
        """Σ_i ω_i ‖J_iᵀ S_i ε_i‖², averaged over draws of ε or summed over the columns of S."""
        likelihood = _likelihood(recording.output.likelihood)
        f = likelihood.parameters
        exact = self.probes is None
        noises = (
            likelihood.basis()
            if exact
            else (likelihood.noise(problem.generator) for _ in range(self.probes or 1))
        )
        average = recording.output.shares.mean_or_zero
        traces = [average(recording.norms(f, likelihood.root(noise)).squared) for noise in noises]
        return torch.stack(traces).sum() if exact else torch.stack(traces).mean()

    def _over_signs(self, output: Output, problem: Problem, *, differentiable: bool) -> Tensor:
        """‖Σ_i √ω_i J_iᵀ S_i ε_i‖², averaged over draws of ε; cross terms have mean 0."""
        likelihood = _likelihood(output.likelihood)
        draws = []
        for _ in range(self.probes or 1):
            root = likelihood.root(likelihood.noise(problem.generator))
            scale = output.shares.as_tensor(output.losses).sqrt().view(-1, *[1] * (root.ndim - 1))
            vector = structured_gradient(
                likelihood.parameters,
                problem,
                scale * root,
                differentiable=differentiable,
                retain=True,
            )
            draws.append(inner(vector, vector))
        return torch.stack(draws).mean()


def _likelihood(likelihood: Likelihood | None) -> Likelihood:
    if likelihood is None:
        raise TypeError(
            "ModelSampled draws labels: the closure must return a likelihood, Categorical(logits, "
            "targets) or Gaussian(mean, targets, std), not losses"
        )
    return likelihood
