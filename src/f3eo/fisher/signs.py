"""Random signs: an unbiased estimate of the per-sample trace for any architecture."""

import torch
from torch import Tensor

from f3eo.closure.coupling import Coupling
from f3eo.closure.evaluate import evaluate
from f3eo.closure.mixing import mixing_modules
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature import Engine, Objective
from f3eo.curvature.engine import Product
from f3eo.decompositions import Decomposed
from f3eo.fisher.accuracy import product_error
from f3eo.fisher.by_engine import ByEngine
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.fisher.objective import Scalars
from f3eo.fisher.parameters import structured_gradient
from f3eo.tensors import inner, scaled, squared_norm


class Sign(ByEngine):
    """Tr F̂ ≈ ‖v‖², v = Σ_i r_i √ω_i ∇ℓ_i with random signs r_i = ±1; unbiased, and h = H_r v.

    H_r is the Hessian of Σ_i r_i √ω_i ℓ_i. The variance of the trace is (2/B²) Σ_{i≠j}
    (∇ℓ_i·∇ℓ_j)² for ω_i = 1/B. The batch is split into its positive and its negative samples; the
    sum of their gradients gives ∇L and the difference gives v, so ∇L costs nothing extra. One
    forward pass and two backward passes do the same if there is no batch to split, if BatchNorm or
    the closure couples the samples (`f3eo.closure.coupling`), or if samples have weights.

    Args:
        engine: computes H_r v; default `DoubleBackward()`, which also replaces
            `FiniteDifference()` where differences fail (`f3eo.curvature.guard`).
        balanced: draw as many positive as negative signs. For even B the expectation is then
            (1/(B−1)) Σ_i ‖∇ℓ_i − ∇L‖² = Tr Cov(∇ℓ), the trace without the part of ∇L.
    """

    additive = True

    def __init__(self, engine: Engine | None = None, *, balanced: bool = False) -> None:
        super().__init__(engine)
        self.balanced = balanced
        self._coupling = Coupling()

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        refuse_hooks(problem.parameters, problem.name)
        count = problem.size
        if count and self._splits(problem, count):
            return self._split(problem, count)
        together = _Together(self, problem)
        objectives = [Scalars(together, problem, per_sample=True)]
        result = self.product(objectives, [1.0, -1.0], problem)
        return _gradients(result, together.samples, together.weight)

    def _split(self, problem: Problem, count: int) -> Gradients:
        """From one forward pass over the positive samples and one over the negative."""
        signs = self.signs(count, problem.generator)
        halves = [(r, (signs == r).nonzero().flatten()) for r in (1.0, -1.0)]
        halves = [(r, index) for r, index in halves if len(index)]
        objectives = [_half(problem.part(index), count) for _, index in halves]
        whole = _whole(problem, signs, objectives[0])
        result = self.product(objectives, [r for r, _ in halves], problem, whole)
        return _gradients(result, count, count)

    def _splits(self, problem: Problem, count: int) -> bool:
        """Whether the losses of a part of the batch are those of the whole batch."""
        if count == 1 or mixing_modules(problem.model):
            return False
        coupling = self._coupling.check(problem, torch.arange(count // 2))
        return coupling.known and coupling.difference is None and not coupling.weighted

    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        output = evaluate(problem, per_sample=True, differentiable=differentiable)
        losses = output.losses
        signs = self.signs(len(losses), problem.generator).to(losses)
        roots = signs * output.shares.as_tensor(losses).sqrt()
        value = torch.dot(roots, losses)
        vector = structured_gradient(value, problem, differentiable=differentiable)
        losses = output.shares.rescale(losses)
        return losses if differentiable else losses.detach(), inner(vector, vector)

    def signs(self, count: int, generator: torch.Generator | None) -> Tensor:
        """r, shape (count,), ±1."""
        device = generator.device if generator is not None else "cpu"
        if self.balanced:
            order = torch.randperm(count, generator=generator, device=device)
            return 1.0 - 2.0 * (order % 2)
        return 1.0 - 2.0 * torch.randint(0, 2, (count,), generator=generator, device=device)


def _gradients(result: Product, samples: int, weight: Tensor | int) -> Gradients:
    """The estimates from H v of f± = ½ (L ± S): v and H v lack √B and B.

    Args:
        result: of an engine, with f₊ − f₋ = S.
        samples: B.
        weight: Σ w_i.
    """
    loss, trace = torch.stack(result.values).sum(), squared_norm(result.vector) * samples
    return Gradients(
        loss=loss,
        weight=weight,
        gradient=[_total(column) for column in zip(*result.gradients, strict=True)],
        structure=scaled(result.product, samples),
        trace=trace,
        error=product_error(result, loss, trace.sqrt()),
    )


def _half(problem: Problem, count: int) -> Scalars:
    """(1/B) Σ ℓ_i over the samples of one sign.

    Args:
        problem: with these samples as its batch.
        count: B, of the whole batch.
    """

    def share(output: Output) -> list[Tensor]:
        if output.shares.weights is not None:
            raise ValueError(
                "the closure returned weights, and none when Sign() first ran it: let it "
                "return Weighted(losses, weights) always, or use PerSample()"
            )
        return [output.losses.sum() / count]

    return Scalars(share, problem, per_sample=True)


def _whole(problem: Problem, signs: Tensor, half: Scalars) -> Objective:
    """(1/B) Σ r_i ℓ_i from one forward pass; [] if the half drew random numbers."""

    def signed(output: Output) -> list[Tensor]:
        return [torch.dot(signs.to(output.losses), output.losses) / len(output.losses)]

    def objective(*, differentiable: bool = True, mode: Decomposed | None = None) -> list[Tensor]:
        return [] if half.drew() else half.in_same_surroundings(signed, problem)

    return objective


class _Together:
    """f± = ½ (L ± S), S = Σ r_i √(ω_i/B) ℓ_i, from one forward pass; signs are drawn once.

    Without weights f₊ and f₋ are (1/B) Σ ℓ_i over the positive and over the negative samples.
    """

    def __init__(self, estimator: Sign, problem: Problem) -> None:
        self._estimator = estimator
        self._problem = problem
        self._signs: Tensor | None = None
        self.samples = 0
        self.weight: Tensor | int = 0

    def __call__(self, output: Output) -> list[Tensor]:
        losses, shares = output.losses, output.shares
        if self._signs is None:
            signs = self._estimator.signs(len(losses), self._problem.generator)
            self.samples, self.weight = len(losses), shares.total
            self._signs = signs.to(losses.device)
        if shares.weights is None:
            positive, means = (self._signs > 0).to(losses), losses / self.samples
            return [torch.dot(means, positive), torch.dot(means, 1 - positive)]
        each = shares.as_tensor(losses)
        signed = self._signs.to(losses) * (each / self.samples).sqrt()
        return [torch.dot(losses, 0.5 * (each + signed)), torch.dot(losses, 0.5 * (each - signed))]


def _total(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    """The sum of the gradients of one parameter."""
    present = [g for g in gradients if g is not None]
    return sum(present[1:], present[0]) if present else None
