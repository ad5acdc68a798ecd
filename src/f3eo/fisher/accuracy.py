"""The width of a difference of gradients, and the relative error of h that it causes.

A difference over a distance s along a unit gradient errs by curvature and by rounding. Over
s = ℓ/‖∇ℓ‖ a loss changes by about itself, and near a fit so does its gradient (for ℓ = e^(−m),
∇ℓ = −ℓ ∇m). A loss near zero is a difference of numbers near one, so the relative rounding error of
its gradient is u/ℓ. With x = s ‖∇ℓ‖/ℓ, the relative change of the gradient, u the rounding unit and
ℓ counted as at most 1,

    error ≈ x + (u/ℓ)/x (forward),   x² + (u/ℓ)/x (central),   u/ℓ (double backward),

smallest at x = √(u/ℓ) and ∛(u/2ℓ). Source: Nocedal & Wright 2006, section 8.1; docs/performance.md
compares the curve with a float64 loop over samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.curvature import FiniteDifference
from f3eo.curvature.engine import Product
from f3eo.curvature.guard import PATIENCE, Coarse

LIMIT = 0.01
"""Expected relative error of h above which double backward replaces differences."""

LIMIT_IN_16_BITS = 0.05
"""The same for central differences in 16 bits, where double backward errs by 1 % and more."""

SHARE_IN_16_BITS = 1 / 8
"""Of the rounding unit: numbers of 16 bits are rounded once each, and summed in float32. Measured
in docs/precision.md."""

REACH = (1 / 16, 1 / 2)
"""Largest distance, forward and central, in units of √u ‖θ‖. It binds if the losses contain a large
constant, which makes ℓ/‖∇ℓ‖ meaningless."""


def in_16_bits(unit: float) -> bool:
    """Whether a rounding unit is that of bfloat16, float16 or TF32."""
    return unit > torch.finfo(torch.float32).eps


def unit_of_sums(unit: float) -> float:
    """The rounding unit that counts for a mean over samples and positions."""
    return unit * SHARE_IN_16_BITS if in_16_bits(unit) else unit


@dataclass(frozen=True)
class Width:
    """The width of a difference, and the error it causes; all scalars.

    Args:
        distance: s, the root mean square over the samples of how far their parameters move.
        moved: x, the relative change of the gradients.
        error: the expected relative error of h.
    """

    distance: Tensor
    moved: Tensor
    error: Tensor


@torch.no_grad()
def width(
    engine: FiniteDifference,
    length: Tensor,
    loss: Tensor,
    norm: Tensor,
    unit: float,
) -> Width:
    """The width with the smallest error, or that of the engine's step.

    Args:
        engine: its `step`, if given, is s/‖θ‖.
        length: ‖θ‖, a scalar.
        loss: mean of |ℓ_i|, a scalar.
        norm: mean of ‖∇ℓ_i‖, a scalar.
        unit: u, the rounding unit.
    """
    ratio = torch.where((norm > 0) & (loss > 0), loss / norm, torch.inf)
    unit_loss = unit / loss.clamp(unit, 1.0)
    length = torch.where(length == 0, 1, length).to(ratio)
    if engine.step is not None:
        distance = engine.step * length
    else:
        best = (unit_loss / 2) ** (1 / 3) if engine.central else unit_loss.sqrt()
        distance = torch.minimum(best * ratio, REACH[engine.central] * unit**0.5 * length)
    moved = distance / ratio
    error = torch.where(loss > 0, _error(moved, unit_loss, engine.central), 0)
    return Width(distance, moved, error)


def refuse_coarse(
    found: Width, unit: float, parameters: Sequence[Tensor], *, central: bool
) -> None:
    """Refuse differences where double backward is more exact.

    Args:
        found: the best width.
        unit: u, the rounding unit.
        parameters: θ, that samples move from.
        central: whether the difference is central.

    Raises:
        Coarse: it is.
    """
    if not in_16_bits(unit):
        if float(found.error) > LIMIT:
            raise Coarse(f"they are expected to err by more than {LIMIT:.0%}")
        return
    if any([in_16_bits(torch.finfo(p.dtype).eps) for p in parameters]):
        raise Coarse(
            "parameters of 16 bits are too coarse to be moved by little: keep them in float32, "
            "under torch.autocast",
            batches=PATIENCE,
        )
    if not central:
        raise Coarse(
            "the closure works in 16 bits or TF32, too coarse for forward differences: "
            "FiniteDifference(central=True) would do",
            batches=PATIENCE,
        )
    if float(found.error) > LIMIT_IN_16_BITS:
        raise Coarse(f"they are expected to err by more than {LIMIT_IN_16_BITS:.0%} in 16 bits")


@torch.no_grad()
def expected_error(
    distance: Tensor, loss: Tensor, norm: Tensor, unit: float, *, central: bool
) -> Tensor:
    """The expected relative error of one sample's h by a difference; a scalar.

    Args:
        distance: how far the sample's parameters move.
        loss: |ℓ_i| > 0.
        norm: ‖∇ℓ_i‖ > 0.
        unit: u, the rounding unit.
        central: whether the difference is central.
    """
    return _error(distance * norm / loss, unit / loss.clamp(unit, 1.0), central)


@torch.no_grad()
def product_error(product: Product, loss: Tensor, norm: Tensor) -> Tensor | None:
    """The expected relative error of H v, kinks not counted; None if the engine has no `unit`.

    Args:
        product: H v, with the width of its difference.
        loss: L.
        norm: root mean square of ‖∇ℓ_i‖.
    """
    if product.unit is None:
        return None
    loss = loss.abs()
    if product.distance == 0:
        return product.unit / loss.clamp(product.unit, 1.0)
    distance = torch.full_like(loss, product.distance)
    return expected_error(distance, loss, norm.to(loss), product.unit, central=product.central)


def _error(moved: Tensor, unit_loss: Tensor, central: bool) -> Tensor:
    return (moved.square() if central else moved) + unit_loss / moved


@torch.no_grad()
def rounding(loss: Tensor, unit: float) -> Tensor:
    """The expected relative error of h by double backward, u/ℓ; a scalar.

    Args:
        loss: mean of |ℓ_i|, a scalar.
        unit: u, the rounding unit.
    """
    return unit / loss.clamp(unit, 1.0)
