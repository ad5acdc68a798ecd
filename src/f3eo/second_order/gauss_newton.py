"""Gauss-Newton with Levenberg-Marquardt damping, by conjugate gradients."""

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
    the positions a sample's loss averages), so this is damped natural gradient descent. λ follows
    the ratio ρ of actual to predicted reduction of the loss on the batch: times
    max(⅓, 1 − (2ρ − 1)³) after a step that is kept. A step that increases the loss is taken back;
    λ rises by 2 then, by 4 after the next in a row, by 8, and so on.

    Args:
        model: a module, or parameters or parameter groups. With a module buffers are protected.
        lr: factor on the step, per group; default 1.
        damping: first λ > 0, in units of the curvature of the loss; default 0.1. It stays between
            1e-10 and 1e30; outside of them it moves inwards only.
        max_iterations: largest number of products G v in a step; default 100.
        tolerance: conjugate gradients stop at ‖(G + λI) d + ∇L‖ ≤ tolerance · ‖∇L‖; default 1e-4.
        on_nonfinite: "skip" (counts in `skipped`, warns once) or "raise" where loss, gradient or
            curvature is not finite. A loss that is not finite after the step is a rejected step.

    Raises:
        TypeError, ValueError: arguments that do not fit; in `step`, a closure that returns losses
            instead of a likelihood.

    Source: Martens 2010 (Hessian-free optimization), without its preconditioner, backtracking and
    shared starting point of conjugate gradients; damping of Levenberg and Marquardt by the rule of
    Nielsen 1999.
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
        """ν: what λ is multiplied with if the next step is rejected."""

    def _blocks(self, parameters: list[Tensor]) -> list[list[int]]:
        return [list(range(len(parameters)))]

    def _models(self, output: Output, parameters: list[Tensor]) -> list[Quadratic]:
        return gauss_newton(output, parameters, self._blocks(parameters))

    def _minimised(self, model: Quadratic, rounding: float) -> Solution:
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
