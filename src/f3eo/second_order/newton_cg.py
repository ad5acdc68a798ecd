"""Newton's method in a trust region, by conjugate gradients, with negative curvature followed."""

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

    Steihaug's conjugate gradients: H d = −∇L where that lies within Δ; along a direction of
    negative curvature, to the edge. Δ follows the ratio of actual to predicted reduction of the
    loss on the batch; a step that increases it is taken back.

    Where the model promises less than the loss can resolve (∇L = 0: a minimum, or a saddle that
    conjugate gradients cannot see), they are run once more from a random vector; what negative
    curvature that finds is followed downhill to the edge.

    Args:
        model: a module, or parameters or parameter groups. With a module buffers are protected.
        lr: factor on the step, per group; default 1.
        radius: first Δ > 0, in units of the parameters; default 1.
        max_iterations: largest number of products H v in a step; default 100.
        tolerance: conjugate gradients stop at ‖H d + ∇L‖ ≤ tolerance · ‖∇L‖; default 1e-4.
        on_nonfinite: "skip" (counts in `skipped`, warns once) or "raise" where loss, gradient or
            curvature is not finite. A loss that is not finite after the step is a rejected step.
        generator: source of the random vector; default torch's global one.

    Raises:
        TypeError, ValueError: arguments that do not fit.

    Source: Steihaug 1983; Nocedal & Wright 2006, algorithms 4.1 and 7.2; the random vector after
    Royer, O'Neill & Wright 2020, procedure 2.
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

    def _minimised(self, model: Quadratic, rounding: float) -> Solution:
        solution = self._conjugate_gradients(model, model.gradient, self.radius)
        # Inside the region conjugate gradients promise −½⟨∇L, d⟩.
        (promised,) = fetched([-0.5 * (model.gradient @ solution.step)])
        if solution.at_edge or promised > rounding:
            return solution
        return self._escaped(model, solution)

    def _escaped(self, model: Quadratic, solution: Solution) -> Solution:
        """Downhill along negative curvature that a random vector finds; else `solution`."""
        g = model.gradient
        device = self.generator.device if self.generator is not None else g.device
        noise = torch.randn(g.shape, generator=self.generator, device=device, dtype=g.dtype)
        # In the range of H, so that parameters the loss does not use stay where they are.
        found = self._conjugate_gradients(model, model.product(noise.to(g.device)), inf)
        iterations = solution.iterations + found.iterations + 1
        if found.direction is None or found.curvature == 0:
            return replace(solution, iterations=iterations)
        step = found.direction * (self.radius / found.direction.norm())
        step = torch.where(g @ step > 0, -step, step)
        return replace(found, step=step, iterations=iterations, at_edge=True)

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
        drawn = None if self.generator is None else self.generator.get_state()
        return {**super()._own_state(), "generator": drawn}

    def _restore(self, own: dict[str, Any]) -> None:
        drawn = own["generator"]
        super()._restore({k: v for k, v in own.items() if k != "generator"})
        if self.generator is not None and drawn is not None:
            self.generator.set_state(drawn.cpu())
