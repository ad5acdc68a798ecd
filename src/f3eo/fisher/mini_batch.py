"""The source document's estimate: the squared norm of the mini-batch gradient."""

import torch
from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.graph import refuse_once_differentiable
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature import Engine
from f3eo.fisher.accuracy import product_error
from f3eo.fisher.by_products import ByProducts
from f3eo.fisher.estimator import Gradients, chosen
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.fisher.objective import Scalars
from f3eo.tensors import inner, squared_norm


class MiniBatch(ByProducts):
    """‖g_B‖², g_B = ∇(1/B)Σℓ_i; its ½∇ is H g_B. Exact for B = 1, biased otherwise.

    E‖g_B‖² = (1 − 1/B) ‖E g‖² + Tr F̂/B: a batch of 256 sees 1/256 of the trace. Any architecture,
    BatchNorm included; a scalar loss is taken too. (f3eo-theory, section "Matrix-Free HVP".)

    Args:
        engine: how H g_B is computed; default `DoubleBackward()`, which also takes the place of
            `FiniteDifference()`, logged once, where that gives none (`f3eo.curvature.guard`).
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

        objective = Scalars(mean, problem, per_sample=False)
        result = self._products.product([objective], [1.0], problem.parameters, problem.structured)
        trace = squared_norm(result.vector)
        return Gradients(
            loss=result.values[0],
            weight=weight,
            gradient=result.gradients[0],
            structure=result.product,
            trace=trace,
            error=product_error(result, result.values[0], trace.sqrt()),
        )

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        output = evaluate(problem, per_sample=False, differentiable=True)
        vector = attached_gradient(output.mean(), problem)
        return output.shares.rescale(output.losses), inner(vector, vector)


def attached_gradient(
    value: Tensor, problem: Problem, cotangent: Tensor | None = None
) -> list[Tensor]:
    """Jᵀ·cotangent (∇ of a scalar) in the structured parameters, differentiable.

    Raises:
        ValueError: a hook on the gradient of a parameter.
        RuntimeError: a function that is differentiable once.
    """
    refuse_hooks(problem.parameters, problem.name)
    vector = list(
        torch.autograd.grad(
            value,
            chosen(problem),
            cotangent,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    refuse_once_differentiable([value], vector)
    return vector
