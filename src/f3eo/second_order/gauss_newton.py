"""Gauss-Newton steps with Levenberg-Marquardt damping, solved by conjugate gradients."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from f3eo.closure.output import Output
from f3eo.curvature.conjugate_gradients import Solution, truncated_cg
from f3eo.curvature.gauss_newton import gauss_newton
from f3eo.curvature.quadratic import Quadratic
from f3eo.optimizer.checks import in_range
from f3eo.second_order.damping import GROWTH, nielsen
from f3eo.second_order.optimizer import SecondOrder
from f3eo.second_order.report import Report


class GaussNewton(SecondOrder):
    """θ ← θ + lr · d with (G + λ I) d = −∇L, G the full Gauss-Newton matrix; no matrix is formed.

    G = (1/B) Σ_i J_iᵀ (∇²_f ℓ_i) J_i is the true Fisher matrix for the likelihoods of `f3eo` (times
    the number of positions that a sample's loss averages), so this is damped natural gradient
    descent. With ρ the ratio of actual to predicted reduction of the loss on the batch, a kept step
    sets λ ← λ · max(⅓, 1 − (2ρ − 1)³). A step that increases the loss is taken back and λ doubles;
    it rises by a factor of 4 at the next in a row, then 8, and so on.

    Args:
        model: a module, or parameters or parameter groups. A module's buffers are updated once a
            step.
        lr: factor on the step, per group; default 1.
        damping: first λ > 0, in units of the curvature of the loss; default 0.1. λ is kept within
            [1e-10, 1e30]; a first λ outside moves towards that interval only.
        max_iterations: largest number of products G v in a step; default 100.
        tolerance: conjugate gradients stop at ‖(G + λI) d + ∇L‖ ≤ tolerance · ‖∇L‖; default 1e-4.
        on_nonfinite: "skip" (counts in `skipped` and warns) or "raise" if loss, gradient or
            curvature is not finite. If only the loss after the step is not finite, the step is
            taken back.

    Raises:
        TypeError, ValueError: an argument is out of range; in `step`, the closure returned losses
            instead of a likelihood.

    Source: Martens 2010 (Hessian-free optimization); damping of Levenberg and Marquardt by the rule
    of Nielsen 1999. Deviations from Martens: no preconditioner, no backtracking, and conjugate
    gradients start from 0.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Any],
        *,
        lr: float = 1.0,
        damping: float = 0.1,
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        on_nonfinite: str = "skip",
    ) -> None:
        super().__init__(model, lr, max_iterations, tolerance, on_nonfinite)
        self.damping = in_range("damping", damping, 0.0, None)
        self.growth = GROWTH
        """ν: factor on λ if the next step is rejected."""

    def _blocks(self, parameters: list[Tensor]) -> list[list[int]]:
        return [list(range(len(parameters)))]

    def _models(self, output: Output, parameters: list[Tensor]) -> list[Quadratic]:
        return gauss_newton(output, parameters, self._blocks(parameters))

    def _minimise(self, model: Quadratic, rounding: float) -> Solution:
        return truncated_cg(
            model.damped(self.damping),
            model.gradient,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )

    def _adapt(self, report: Report, solutions: list[Solution]) -> None:
        self.damping, self.growth = nielsen(
            self.damping, self.growth, report.ratio, report.accepted
        )

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "growth": self.growth}
