"""Random signs: an unbiased estimate of the per-sample trace for any architecture."""

import torch
from torch import Tensor

from f3eo.closure.coupling import Coupling
from f3eo.closure.evaluate import evaluate
from f3eo.closure.mixing import mixing_modules
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature import Engine, Objective
from f3eo.decompositions import Decomposed
from f3eo.fisher.accuracy import product_error
from f3eo.fisher.by_products import ByProducts
from f3eo.fisher.estimator import Gradients
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.fisher.mini_batch import attached_gradient
from f3eo.fisher.objective import Scalars
from f3eo.tensors import inner, scaled, squared_norm


class Sign(ByProducts):
    """‖B^{-1/2} Σ_i r_i ∇ℓ_i‖² with random signs r_i = ±1: expectation Tr F̂ over the signs.

    Its variance is (2/B²) Σ_{i≠j} (∇ℓ_i·∇ℓ_j)². The batch is split into its positive and its
    negative samples; the sum of their gradients gives ∇L and the difference the signed one, so ∇L
    costs nothing more. Without a batch to split, where BatchNorm or the closure ties the samples
    together (`f3eo.closure.coupling`), or where samples have weights ω_i (r_i √ω_i then stands for
    r_i B^{-1/2}), both come from one forward pass by two backward passes.

    Args:
        engine: how the Hessian product is computed; default `DoubleBackward()`, which also takes
            the place of `FiniteDifference()`, logged once, where that gives none
            (`f3eo.curvature.guard`).
        balanced: as many positive as negative signs; for even B the expectation is then
            (1/(B−1)) Σ‖∇ℓ_i − ∇L‖² = Tr Cov(∇ℓ), the trace without the mean gradient's part.
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
        whole = None
        if not count or not self._splits(problem, count):
            together = _Together(self, problem)
            objectives = [Scalars(together, problem, per_sample=True)]
            weights = [1.0, -1.0]
        else:
            together = None
            signs = self.signs(count, problem.generator)
            halves = [(w, (signs == w).nonzero().flatten()) for w in (1.0, -1.0)]
            halves = [(w, index) for w, index in halves if len(index)]
            objectives = [self._part(problem.part(index), count) for _, index in halves]
            weights = [w for w, _ in halves]
            whole = self._whole(problem, signs, objectives)
        result = self._products.product(
            objectives, weights, problem.parameters, problem.structured, whole
        )
        samples = together.samples if together is not None else count or 1
        loss, trace = torch.stack(result.values).sum(), squared_norm(result.vector) * samples
        # f± as without weights: (1/B) Σ ℓ_i over the positive and the negative samples; v and H v
        # want B^½ and B.
        return Gradients(
            loss=loss,
            weight=together.weight if together is not None else samples,
            gradient=[_total(column) for column in zip(*result.gradients, strict=True)],
            structure=scaled(result.product, samples),
            trace=trace,
            error=product_error(result, loss, trace.sqrt()),
        )

    def _splits(self, problem: Problem, count: int) -> bool:
        """Whether the halves of a batch have the losses that they have in the whole."""
        if count == 1 or mixing_modules(problem.model):
            return False
        found = self._coupling.check(problem, torch.arange(count // 2))
        return found.known and found.difference is None and not found.weighted

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        output = evaluate(problem, per_sample=True, differentiable=True)
        losses = output.losses
        signs = self.signs(len(losses), problem.generator).to(losses)
        roots = signs * output.shares.as_tensor(losses).sqrt()
        vector = attached_gradient(torch.dot(roots, losses), problem)
        return output.shares.rescale(losses), inner(vector, vector)

    def signs(self, count: int, generator: torch.Generator | None) -> Tensor:
        """r, shape (count,), ±1."""
        device = generator.device if generator is not None else "cpu"
        if self.balanced:
            order = torch.randperm(count, generator=generator, device=device)
            return 1.0 - 2.0 * (order % 2)
        return 1.0 - 2.0 * torch.randint(0, 2, (count,), generator=generator, device=device)

    def _part(self, problem: Problem, count: int) -> Scalars:
        def share(output: Output) -> list[Tensor]:
            if output.shares.weights is not None:
                raise ValueError(
                    "the closure returned weights, and none when Sign() first ran it: let it "
                    "return Weighted(losses, weights) always, or use PerSample()"
                )
            return [output.losses.sum() / count]

        return Scalars(share, problem, per_sample=True)

    def _whole(self, problem: Problem, signs: Tensor, parts: list[Scalars]) -> Objective:
        """(1/B) Σ r_i ℓ_i from one forward pass; nothing where the parts drew random numbers."""

        def signed(output: Output) -> list[Tensor]:
            return [torch.dot(signs.to(output.losses), output.losses) / len(output.losses)]

        def objective(
            *, differentiable: bool = True, mode: Decomposed | None = None
        ) -> list[Tensor]:
            return [] if parts[0].drawn() else parts[0].rerun(signed, problem)

        return objective


class _Together:
    """f± = ½ (L ± S) from one forward pass, signs drawn once; S = Σ r_i √(ω_i/B) ℓ_i.

    Without weights that is (1/B) Σ ℓ_i over the positive and over the negative samples.
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


def _total(column: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [g for g in column if g is not None]
    return sum(present[1:], present[0]) if present else None
