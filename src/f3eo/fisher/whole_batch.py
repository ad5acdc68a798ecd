"""The source document's estimate: the squared norm of the mini-batch gradient."""

import torch
from torch import Tensor

from f3eo.evaluation import Problem, Replay, evaluate
from f3eo.fisher.estimator import Estimator, Gradients, chosen
from f3eo.products import DoubleBackward, Engine
from f3eo.tensors import inner, squared_norm


class Batch(Estimator):
    """‖g_B‖², g_B = ∇(1/B)Σℓ_i; its ½∇ is H g_B. Exact for B = 1, biased otherwise.

    E‖g_B‖² = (1 − 1/B) ‖E g‖² + Tr F̂/B: a batch of 256 sees 1/256 of the trace. Any architecture,
    BatchNorm included; a scalar loss is taken too. (f3eo-theory, section "Matrix-Free HVP".)

    Args:
        engine: how H g_B is computed; default `DoubleBackward()`.
    """

    additive = False
    per_sample = False

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or DoubleBackward()
        self.forwards = 3.0 + self.engine.forwards

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        weight: Tensor | int = 1

        def objective() -> list[Tensor]:
            nonlocal weight
            output = evaluate(problem, per_sample=False, twice=self.engine.twice)
            weight = output.shares.total
            return [output.mean()]

        result = self.engine.product(
            [Replay(objective, problem)], [1.0], problem.parameters, problem.structured
        )
        return Gradients(
            loss=result.values[0],
            weight=weight,
            gradient=result.gradients[0],
            structure=result.product,
            trace=squared_norm(result.vector),
        )

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        output = evaluate(problem, per_sample=False, twice=True)
        vector = attached_gradient(output.mean(), problem)
        return output.shares.joined(output.losses), inner(vector, vector)


def attached_gradient(
    value: Tensor, problem: Problem, cotangent: Tensor | None = None
) -> list[Tensor]:
    """Jᵀ·cotangent (∇ of a scalar) in the structured parameters, differentiable."""
    return list(
        torch.autograd.grad(
            value,
            chosen(problem),
            cotangent,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )
