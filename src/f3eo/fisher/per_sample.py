"""The exact per-sample trace, (1/B) Σ_i ‖∇ℓ_i‖²."""

from typing import Any

from torch import Tensor

from f3eo.evaluation import Problem
from f3eo.fisher.estimator import Estimator, Gradients, structure_gradient
from f3eo.fisher.ghost import Ghost


class PerSample(Estimator):
    """Tr F̂ = (1/B) Σ_i ‖∇ℓ_i‖², exact; h = (1/B) Σ_i H_i ∇ℓ_i, exact; ∇L from the same pass.

    One forward pass, gradients in pre-activations, one backward pass through both: 7 forward passes
    where a plain gradient costs 3. Every operation that takes parameters is covered: by a rule (see
    `f3eo.register`) or by the exact torch.func fallback, which is logged. On the first batch of a
    new model the result is checked against two single samples.

    Args:
        memory: bytes that per-sample gradients written out may take at a time; default 256 MiB.
    """

    additive = True
    forwards = 7.0

    def __init__(self, *, memory: int = 2**28) -> None:
        if not memory > 0:
            raise ValueError(f"PerSample needs memory > 0 bytes, received {memory}")
        self.memory = memory
        self._layouts: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"memory": self.memory, "_layouts": {}}

    def capture(self, problem: Problem) -> Ghost:
        """The forward pass, with everything needed for per-sample norms."""
        return Ghost(problem, self.memory, self._layouts)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        ghost = self.capture(problem)
        losses, samples = ghost.losses, len(ghost.losses)
        norms = ghost.norms(losses)
        trace = norms.squared.mean()
        totals = [norms.totals.get(id(p)) for p in problem.parameters]
        return Gradients(
            loss=losses.detach().mean(),
            samples=samples,
            gradient=[
                None if t is None else (t / samples).to(p.dtype)
                for t, p in zip(totals, problem.parameters, strict=True)
            ],
            structure=structure_gradient(trace, problem),
            trace=trace.detach(),
        )

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`."""
        ghost = self.capture(problem)
        squared = ghost.norms(ghost.losses).squared
        return ghost.losses, squared.sum() / max(len(squared), 1)
