"""The source document's estimate: the squared norm of the mini-batch gradient."""

from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature import Engine
from f3eo.fisher.accuracy import product_error
from f3eo.fisher.by_engine import ByEngine
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.fisher.objective import Scalars
from f3eo.fisher.parameters import structured_gradient
from f3eo.tensors import inner, squared_norm


class MiniBatch(ByEngine):
    """Tr F ≈ ‖∇L‖² and h = ½∇‖∇L‖² = H ∇L. Exact for B = 1, biased otherwise.

    E‖∇L‖² = (1 − 1/B) ‖E ∇ℓ‖² + Tr F̂/B: a batch of 256 contains 1/256 of the trace. Works on any
    architecture, BatchNorm included, and on a scalar loss. (f3eo-theory, "Matrix-Free HVP")

    Args:
        engine: computes H ∇L; default `DoubleBackward()`, which also replaces `FiniteDifference()`
            where differences fail (`f3eo.curvature.guard`).
    """

    additive = False
    per_sample = False

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__(engine)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        refuse_hooks(problem.parameters, problem.name)
        weight: Tensor | int = 1

        def mean(output: Output) -> list[Tensor]:
            nonlocal weight
            weight = output.shares.total
            return [output.mean()]

        result = self.product([Scalars(mean, problem, per_sample=False)], [1.0], problem)
        trace = squared_norm(result.vector)
        return Gradients(
            loss=result.values[0],
            weight=weight,
            gradient=result.gradients[0],
            structure=result.product,
            trace=trace,
            error=product_error(result, result.values[0], trace.sqrt()),
        )

    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        output = evaluate(problem, per_sample=False, differentiable=differentiable)
        vector = structured_gradient(output.mean(), problem, differentiable=differentiable)
        losses = output.shares.rescale(output.losses)
        return losses if differentiable else losses.detach(), inner(vector, vector)
