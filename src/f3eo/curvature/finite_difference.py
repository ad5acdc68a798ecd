"""Hessian-vector products from gradients at perturbed weights: no graph of the gradient is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from f3eo.closure.evaluate import check_reached
from f3eo.closure.graph import contents
from f3eo.curvature.double_backward import weighted_sum
from f3eo.curvature.engine import Engine, Objective, Product
from f3eo.curvature.guard import (
    OTHER_LOSSES,
    Differs,
    NotRepeatable,
    custom,
    failed_again,
    mismatch,
)
from f3eo.curvature.passes import Held, Recorded
from f3eo.decompositions import Decomposed
from f3eo.tensors import Vector, fetched, filled, inner, plus, scaled, squared_norm

ROUNDING = 8
"""A bound on the rounding of a sum over samples, in rounding units of its terms (4 was seen)."""


class FiniteDifference(Engine):
    """H v ≈ (∇s(θ + εv) − ∇s(θ))/ε, or (∇s(θ + εv) − ∇s(θ − εv))/2ε (central).

    ε = step · ‖θ‖/‖v‖ over the structured parameters, so the weights move by the same relative
    amount whatever the scale of the loss. Relative error on small smooth networks below 5e-3
    forward and 1e-3 central in float32, 1e-6 and 1e-8 in float64 (asserted in tests/products).
    Kinks (ReLU) between θ and θ + εv add to it, by as much as h itself in wide networks, and are
    in no error that is reported; `PerSample` holds them, `DoubleBackward` does not see them.

    Values without a gradient (detach(), no_grad()) are those of θ. Where θ + εv is another
    function, s(θ + εv) − s(θ) is not ε⟨∇s, v⟩: `MiniBatch` and `Sign` then take
    `DoubleBackward`, and log it once.

    Args:
        central: two perturbed gradients, error O(ε²), instead of one, error O(ε).
        step: relative size of the perturbation; default √u forward and ∛u central, u the
            coarsest rounding unit in the graph of the loss (bfloat16's under its autocast).

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
        weights: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
        *,
        trusting: bool = False,
    ) -> Product:
        """See `Engine.product`.

        Args:
            objectives, weights, parameters, structured, whole: see there.
            trusting: whether the backward of custom functions is taken for their derivative.

        Raises:
            NotRepeatable: there can be no second pass.
            Differs: it is another function.
        """
        chosen = [p for p, s in zip(parameters, structured, strict=True) if s]
        modes = [Recorded(chosen, through=trusting) for _ in objectives]
        first = _pass(objectives, parameters, modes)
        check_reached([g for gs in first.gradients for g in gs], parameters)
        if first.custom and not trusting:
            raise custom(first.custom)
        for mode in modes:
            if mode.obstacle is not None:
                raise NotRepeatable(mode.obstacle)
        vector = weighted_sum(first.gradients, weights, structured, chosen)
        length = squared_norm(vector).sqrt()
        epsilon = self._epsilon(chosen, length, first.unit)
        if epsilon == 0.0:
            product = filled([None] * len(chosen), chosen)
            return Product(first.values, first.gradients, vector, product, first.unit)
        alike = all(mode.parts_alike for mode in modes)

        def moved(size: float) -> _End:
            saved = [p.detach().clone() for p in chosen]
            try:
                with torch.no_grad():
                    torch._foreach_add_(chosen, vector, alpha=size)  # pyright: ignore
                if whole is not None and alike and (sums := whole(differentiable=False)):
                    gradient = torch.autograd.grad(sums[0], chosen, allow_unused=True)
                    return _End(float(sums[0].detach()), filled(gradient, chosen))
                there = _pass(objectives, parameters, [Held(mode.cuts) for mode in modes])
                gradient = weighted_sum(there.gradients, weights, structured, chosen)
                return _End(_sum(there.values, weights), gradient)
            except Exception as error:  # whatever it was, the first pass had none
                raise failed_again(error) from error
            finally:
                _put_back(chosen, saved)

        here = _End(_sum(first.values, weights), vector)
        scale = _sum([v.abs() for v in first.values], [abs(w) for w in weights])
        ends = {size: moved(size) for size in ((-epsilon, epsilon) if self.central else (epsilon,))}
        for size, end in ends.items():
            slopes = float(length.square()), float(inner(end.gradient, vector))
            if mismatch(end.value - here.value, slopes, size, scale, first.unit) > 1:
                raise Differs(f"{OTHER_LOSSES}, or the step is too wide for the curvature")
        low = ends[-epsilon] if self.central else here
        width = 2 * epsilon if self.central else epsilon
        product = scaled(plus(ends[epsilon].gradient, low.gradient, -1.0), 1 / width)
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
    def size(self, chosen: Vector, length: Tensor, default: float) -> Tensor:
        """ε = step · ‖θ‖/length, a scalar tensor; step/length for ‖θ‖ = 0, step ‖θ‖ for length 0.

        Args:
            chosen: θ.
            length: ‖v‖, or what stands for it.
            default: the step, where none was given.
        """
        step = self.step or default
        norm = squared_norm(list(chosen)).sqrt().to(length)
        one = torch.ones_like(length)
        return step * torch.where(norm == 0, one, norm) / torch.where(length == 0, one, length)

    def _epsilon(self, chosen: list[Tensor], length: Tensor, unit: float) -> float:
        default = unit ** (1 / 3 if self.central else 1 / 2)
        size = float(self.size(chosen, length, default))
        return size if float(length) > 0 and isfinite(size) else 0.0


@dataclass(frozen=True)
class _End:
    """s and ∇s at one end of a difference."""

    value: float
    gradient: list[Tensor]


@dataclass(frozen=True)
class _Pass:
    """Values and gradients of all scalars, and what is in their graphs."""

    values: list[Tensor]
    gradients: list[list[Tensor | None]]
    unit: float
    custom: list[str]


def _sum(values: Sequence[Tensor], weights: Sequence[float]) -> float:
    """Σ w_k f_k."""
    return sum(w * v for w, v in zip(weights, fetched(values), strict=True))


@torch.no_grad()
def _put_back(parameters: list[Tensor], values: list[Tensor]) -> None:
    """The parameters' values again, one by one where they cannot be written all at once."""
    try:
        torch._foreach_copy_(parameters, values)  # pyright: ignore
    except Exception:  # tensors of several kinds, such as DTensors beside others
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)


def above_rounding(product: list[Tensor], rounding: Tensor | float) -> list[Tensor]:
    """The product, or zeros where its norm is within what sums in other orders differ by.

    Args:
        product: a difference of gradients over its width.
        rounding: a rounding unit of the terms of these sums, over the same width.
    """
    noise = squared_norm(product).sqrt() <= ROUNDING * rounding
    return [torch.where(noise, 0, p) for p in product]


def _pass(
    objectives: Sequence[Objective], parameters: Sequence[Tensor], modes: Sequence[Decomposed]
) -> _Pass:
    """All objectives, each in its mode."""
    unit, names = 0.0, set[str]()
    values: list[Tensor] = []
    gradients: list[list[Tensor | None]] = []
    for objective, mode in zip(objectives, modes, strict=True):
        scalars = objective(differentiable=False, mode=mode)
        for i, scalar in enumerate(scalars):
            found = contents(scalar)
            unit = max(unit, found.unit)
            names.update(found.custom)
            last = i == len(scalars) - 1
            grads = torch.autograd.grad(
                scalar, parameters, allow_unused=True, retain_graph=not last
            )
            gradients.append(list(grads))
            values.append(scalar.detach())
    return _Pass(values, gradients, unit, sorted(names))
