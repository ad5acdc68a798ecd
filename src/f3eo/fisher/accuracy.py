"""How far differences of gradients are apart, and how exact that makes them.

A difference over a distance s along a unit gradient errs by its curvature and by rounding. Over
s = ℓ/‖∇ℓ‖ a loss changes by as much as itself, and near a fit so does its gradient (for ℓ = e^(−m),
∇ℓ = −ℓ ∇m); a loss near zero is a difference of numbers near one, so that its gradient is rounded
by u/ℓ of itself. In x = s ‖∇ℓ‖/ℓ, with u the rounding unit and ℓ counted as at most 1,

    error ≈ x + (u/ℓ)/x forward,   x² + (u/ℓ)/x central,   u/ℓ by double backward,

smallest at x = √(u/ℓ) and ∛(u/2ℓ). (Nocedal & Wright 2006, section 8.1; docs/performance.md holds
the curve against a loop over samples in float64.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.output import Shares
from f3eo.curvature import FiniteDifference
from f3eo.curvature.engine import Product
from f3eo.tensors import Vector, squared_norm

LIMIT = 0.01
"""Expected relative error of h from which on double backward takes over."""

REACH = (1 / 16, 1 / 2)
"""Largest distance, forward and central, in units of √u ‖θ‖: losses may hold a constant that says
nothing of them, and only then is it the smaller one."""


@dataclass(frozen=True)
class Width:
    """Of a difference.

    Args:
        distance: root mean square over the samples of how far their weights move, s; a scalar.
        moved: x, the relative change of gradients; a scalar.
        error: expected relative error of h; a scalar.
    """

    distance: Tensor
    moved: Tensor
    error: Tensor


@torch.no_grad()
def width(
    engine: FiniteDifference,
    parameters: Vector,
    losses: Tensor,
    norms: Tensor,
    shares: Shares,
    unit: float,
) -> Width:
    """The distance at which a difference errs least, or the one that the engine was given.

    Args:
        engine: `step`, if given, is s/‖θ‖.
        parameters: θ.
        losses: ℓ_i, (B,).
        norms: ‖∇ℓ_i‖, (B,).
        shares: ω_i.
        unit: u.
    """
    loss, ratio, unit_loss = _scale(losses, norms, shares, unit)
    length = squared_norm(list(parameters)).sqrt().to(ratio)
    length = torch.where(length == 0, 1, length)
    if engine.step is not None:
        distance = engine.step * length
    else:
        best = (unit_loss / 2) ** (1 / 3) if engine.central else unit_loss.sqrt()
        distance = torch.minimum(best * ratio, REACH[engine.central] * unit**0.5 * length)
    moved = distance / ratio
    error = torch.where(loss > 0, _error(moved, unit_loss, engine.central), 0)
    return Width(distance, moved, error)


@torch.no_grad()
def expected_error(
    distance: Tensor, loss: Tensor, norm: Tensor, unit: float, *, central: bool
) -> Tensor:
    """Of one sample's h by a difference.

    Args:
        distance: how far its weights move.
        loss: |ℓ_i| > 0.
        norm: ‖∇ℓ_i‖ > 0.
        unit: u.
        central: whether the difference is.
    """
    return _error(distance * norm / loss, unit / loss.clamp(unit, 1.0), central)


@torch.no_grad()
def product_error(product: Product, loss: Tensor, norm: Tensor) -> Tensor | None:
    """Expected relative error of H v, but for kinks; None where the engine does not say.

    Args:
        product: H v, and how it was had.
        loss: mean loss.
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
def rounding(losses: Tensor, norms: Tensor, shares: Shares, unit: float) -> Tensor:
    """Expected relative error of h by double backward; a scalar."""
    return _scale(losses, norms, shares, unit)[2]


def _scale(
    losses: Tensor, norms: Tensor, shares: Shares, unit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean |ℓ|, |ℓ|/‖∇ℓ‖ of the means, and u/ℓ."""
    loss, norm = shares.mean_or_zero(losses.abs()), shares.mean_or_zero(norms.to(losses))
    ratio = torch.where((norm > 0) & (loss > 0), loss / norm, torch.inf)
    return loss, ratio, unit / loss.clamp(unit, 1.0)
