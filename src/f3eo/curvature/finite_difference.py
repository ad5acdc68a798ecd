"""Hessian-vector products from gradients at moved parameters; no graph of the gradient is kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.graph import contents
from f3eo.curvature.double_backward import linear_combination
from f3eo.curvature.engine import Engine, Objective, Product
from f3eo.curvature.guard import Differs, NotRepeatable, custom, failed_again
from f3eo.curvature.mismatch import OTHER_LOSSES, scalar_mismatch
from f3eo.curvature.passes import HoldCuts, RecordCuts
from f3eo.decompositions import Decomposed
from f3eo.tensors import Vector, above_rounding, fetched, filled, inner, plus, scaled, squared_norm


class FiniteDifference(Engine):
    """H v ≈ (∇f(θ + εv) − ∇f(θ))/ε, or (∇f(θ + εv) − ∇f(θ − εv))/2ε (central).

    ε = step · ‖θ‖/‖v‖ over the structured parameters, so the parameters move by the same relative
    amount whatever the scale of the loss. The relative error on small smooth networks is below
    5e-3 forward and 1e-3 central in float32, 1e-6 and 1e-8 in float64 (asserted in
    tests/curvature). Kinks (ReLU) between θ and θ + εv add to it, by as much as h itself in wide
    networks, and no reported error contains them. `PerSample` keeps every operation on its piece;
    `DoubleBackward` is not affected.

    Values without a gradient (detach(), no_grad()) keep what they are at θ. If the pass at θ + εv
    is another function, f(θ + εv) − f(θ) is not ε⟨∇f, v⟩: `MiniBatch` and `Sign` then use
    `DoubleBackward`, and log it once.

    Args:
        central: two gradients at moved parameters, error O(ε²), instead of one, error O(ε).
        step: relative size of the move; default √u forward and ∛u central, u the coarsest
            rounding unit in the graph of the loss (bfloat16's under its autocast).

    Raises:
        ValueError: a step that is not positive.
    """

    differentiable = False

    def __init__(self, *, central: bool = False, step: float | None = None) -> None:
        if step is not None and not step > 0:
            raise ValueError(f"FiniteDifference needs step > 0, received {step}")
        self.central = central
        self.step = step
        self.forwards = 6.0 if central else 3.0

    def product(
        self,
        objectives: Sequence[Objective],
        coefficients: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
        *,
        trust_custom: bool = False,
    ) -> Product:
        """See `Engine.product`.

        Args:
            objectives, coefficients, parameters, structured, whole: see there.
            trust_custom: take the backward of custom functions for their derivative.

        Raises:
            NotRepeatable: no second pass is possible.
            Differs: the second pass is another function.
        """
        selected = [p for p, s in zip(parameters, structured, strict=True) if s]
        modes = [RecordCuts(selected, through=trust_custom) for _ in objectives]
        first = _evaluate(objectives, parameters, modes)
        check_reached([g for gs in first.gradients for g in gs], parameters)
        _refuse_second_pass(first, modes, trust_custom=trust_custom)
        vector = linear_combination(first.gradients, coefficients, structured, selected)
        length = squared_norm(vector).sqrt()
        epsilon = self._epsilon(selected, length, first.unit)
        if epsilon == 0.0:
            product = filled([None] * len(selected), selected)
            return Product(first.values, first.gradients, vector, product, first.unit)
        exchangeable = whole is not None and all(mode.exchangeable for mode in modes)

        def at(shift: float) -> _Point:
            """f and ∇f at θ + shift · v."""
            with _moved(selected, vector, shift):
                if whole is not None and exchangeable and (sums := whole(differentiable=False)):
                    gradient = torch.autograd.grad(sums[0], selected, allow_unused=True)
                    return _Point(float(sums[0].detach()), filled(gradient, selected))
                second = _evaluate(objectives, parameters, [HoldCuts(m.cuts) for m in modes])
                gradient = linear_combination(second.gradients, coefficients, structured, selected)
                return _Point(_sum(second.values, coefficients), gradient)

        here = _Point(_sum(first.values, coefficients), vector)
        scale = _sum([v.abs() for v in first.values], [abs(c) for c in coefficients])
        low = at(-epsilon) if self.central else here
        high = at(epsilon)
        ends = {-epsilon: low, epsilon: high} if self.central else {epsilon: high}
        for shift, end in ends.items():
            slopes = float(length.square()), float(inner(end.gradient, vector))
            if scalar_mismatch(end.value - here.value, slopes, shift, scale, first.unit) > 1:
                raise Differs(f"{OTHER_LOSSES}, or the step is too wide for the curvature")
        width = 2 * epsilon if self.central else epsilon
        product = scaled(plus(high.gradient, low.gradient, -1.0), 1 / width)
        terms = sum(squared_norm([g for g in gs if g is not None]).sqrt() for gs in first.gradients)
        return Product(
            values=first.values,
            gradients=first.gradients,
            vector=vector,
            product=above_rounding(product, first.unit * terms / width),
            unit=first.unit,
            distance=epsilon * float(length),
            central=self.central,
        )

    @torch.no_grad()
    def _epsilon(self, selected: Vector, length: Tensor, unit: float) -> float:
        """ε = step · ‖θ‖/‖v‖, with 1 for ‖θ‖ = 0; 0 where v is 0 or ε is not finite."""
        step = self.step or unit ** (1 / 3 if self.central else 1 / 2)
        norm = squared_norm(list(selected)).sqrt().to(length)
        one = torch.ones_like(length)
        norm, divisor = torch.where(norm == 0, one, norm), torch.where(length == 0, one, length)
        epsilon = float(step * norm / divisor)
        return epsilon if float(length) > 0 and isfinite(epsilon) else 0.0


@dataclass(frozen=True)
class _Point:
    """f = Σ c_k f_k and ∇f on the structured parameters, at one point."""

    value: float
    gradient: list[Tensor]


@dataclass(frozen=True)
class _Pass:
    """f_k and ∇f_k of all objectives; rounding unit and custom functions of their graphs."""

    values: list[Tensor]
    gradients: list[list[Tensor | None]]
    unit: float
    custom: list[str]


def _evaluate(
    objectives: Sequence[Objective], parameters: Sequence[Tensor], modes: Sequence[Decomposed]
) -> _Pass:
    """Evaluate and differentiate all objectives, each in its mode."""
    unit, names = 0.0, set[str]()
    values: list[Tensor] = []
    gradients: list[list[Tensor | None]] = []
    for objective, mode in zip(objectives, modes, strict=True):
        scalars = objective(differentiable=False, mode=mode)
        for i, scalar in enumerate(scalars):
            graph = contents(scalar)
            unit = max(unit, graph.unit)
            names.update(graph.custom)
            last = i == len(scalars) - 1
            gradient = torch.autograd.grad(
                scalar, parameters, allow_unused=True, retain_graph=not last
            )
            gradients.append(list(gradient))
            values.append(scalar.detach())
    return _Pass(values, gradients, unit, sorted(names))


def _refuse_second_pass(first: _Pass, modes: Sequence[RecordCuts], *, trust_custom: bool) -> None:
    """Raise `NotRepeatable` if the first pass rules out a second."""
    if first.custom and not trust_custom:
        raise custom(first.custom)
    for mode in modes:
        if mode.obstacle is not None:
            raise NotRepeatable(mode.obstacle)


def _sum(values: Sequence[Tensor], coefficients: Sequence[float]) -> float:
    """Σ c_k f_k."""
    return sum(c * v for c, v in zip(coefficients, fetched(values), strict=True))


@contextmanager
def _moved(parameters: list[Tensor], vector: list[Tensor], epsilon: float) -> Iterator[None]:
    """Move the parameters to θ + εv, and back to θ at the end.

    Raises:
        Differs: the body failed.
    """
    saved = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            torch._foreach_add_(parameters, vector, alpha=epsilon)  # pyright: ignore
        yield
    except Exception as error:  # whatever it is, the first pass did not raise it
        raise failed_again(error) from error
    finally:
        _copy(saved, parameters)


@torch.no_grad()
def _copy(values: list[Tensor], parameters: list[Tensor]) -> None:
    """Copy values into parameters, one by one where they cannot be written all at once."""
    try:
        torch._foreach_copy_(parameters, values)  # pyright: ignore
    except Exception:  # tensors of several kinds, such as DTensors beside others
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
