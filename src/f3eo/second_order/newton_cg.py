"""Newton steps in a trust region by conjugate gradients, also along negative curvature."""

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.output import Output
from f3eo.curvature.conjugate_gradients import Solution, truncated_cg
from f3eo.curvature.hessian import hessian
from f3eo.curvature.quadratic import Quadratic
from f3eo.optimizer.checks import in_range
from f3eo.second_order.damping import trust_radius
from f3eo.second_order.optimizer import SecondOrder
from f3eo.second_order.report import Report
from f3eo.tensors import fetched


class NewtonCG(SecondOrder):
    """θ ← θ + lr · d, d minimising ⟨∇L, d⟩ + ½ ⟨d, H d⟩ over ‖d‖ ≤ Δ; H is never formed.

    Steihaug's conjugate gradients solve H d = −∇L if the solution lies within Δ, and follow a
    direction of negative curvature to the boundary. Δ is adapted to the ratio of actual to
    predicted reduction of the loss on the batch; a step that increases the loss is taken back.

    At a minimum or saddle point, ∇L = 0, the predicted reduction is below the rounding error of the
    loss. Conjugate gradients are then run again from a random vector. If they find negative
    curvature, the step follows it downhill to the boundary.

    Args:
        model: a module, or parameters or parameter groups. A module's buffers are updated once a
            step.
        lr: factor on the step, per group; default 1.
        radius: first Δ > 0, in units of the parameters; default 1.
        max_iterations: largest number of products H v in a step; default 100.
        tolerance: conjugate gradients stop at ‖H d + ∇L‖ ≤ tolerance · ‖∇L‖; default 1e-4.
        on_nonfinite: "skip" (counts in `skipped` and warns) or "raise" if loss, gradient or
            curvature is not finite. If only the loss after the step is not finite, the step is
            taken back.
        generator: source of the random vector; default torch's global one.

    Raises:
        TypeError, ValueError: an argument is out of range.

    Source: Steihaug 1983; Nocedal & Wright 2006, algorithms 4.1 and 7.2; random vector from Royer,
    O'Neill & Wright 2020, procedure 2. Deviations: see `trust_radius`; the random vector is
    multiplied by H first.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Any],
        *,
        lr: float = 1.0,
        radius: float = 1.0,
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        on_nonfinite: str = "skip",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, lr, max_iterations, tolerance, on_nonfinite)
        self.radius = in_range("radius", radius, 0.0, None)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, received {generator!r}; a seed "
                f"becomes one by torch.Generator().manual_seed(seed)"
            )
        self.generator = generator

    def _models(self, output: Output, parameters: list[Tensor]) -> list[Quadratic]:
        return [hessian(output, parameters)]

    def _minimise(self, model: Quadratic, rounding: float) -> Solution:
        solution = self._conjugate_gradients(model, model.gradient, self.radius)
        # Inside the region the predicted reduction is −½⟨∇L, d⟩.
        (predicted,) = fetched([-0.5 * (model.gradient @ solution.step)])
        if solution.at_edge or predicted > rounding:
            return solution
        return self._escape(model, solution)

    def _escape(self, model: Quadratic, solution: Solution) -> Solution:
        """Step along negative curvature found from a random vector; `solution` if there is none."""
        g = model.gradient
        device = self.generator.device if self.generator is not None else g.device
        noise = torch.randn(g.shape, generator=self.generator, device=device, dtype=g.dtype)
        # H · noise has no entries for parameters that the loss does not use: they do not move.
        escape = self._conjugate_gradients(model, model.product(noise.to(g.device)), inf)
        iterations = solution.iterations + escape.iterations + 1
        if escape.direction is None or escape.curvature == 0:
            return replace(solution, iterations=iterations)
        step = escape.direction * (self.radius / escape.direction.norm())
        step = torch.where(g @ step > 0, -step, step)
        return replace(escape, step=step, iterations=iterations, at_edge=True)

    def _conjugate_gradients(self, model: Quadratic, gradient: Tensor, radius: float) -> Solution:
        return truncated_cg(
            model.product,
            gradient,
            radius=radius,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )

    def _adapt(self, report: Report, solutions: list[Solution]) -> None:
        (solution,) = solutions
        (length,) = fetched([solution.step.norm()])
        self.radius = trust_radius(
            self.radius, report.ratio, report.accepted, length, solution.at_edge
        )

    def _own_state(self) -> dict[str, Any]:
        state = None if self.generator is None else self.generator.get_state()
        return {**super()._own_state(), "generator": state}

    def _load_own_state(self, own: dict[str, Any]) -> None:
        state = own["generator"]
        super()._load_own_state({k: v for k, v in own.items() if k != "generator"})
        if self.generator is not None and state is not None:
            self.generator.set_state(state.cpu())
