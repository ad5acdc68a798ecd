"""Losses whose derivative in the likelihood's parameters is held: the Jacobian's part alone.

With f_i the likelihood's parameters (logits, means) and r_i = ∂ℓ_i/∂f_i at f°_i, held,

    ℓ̃_i = ℓ_i(f°_i) + ⟨r_i, f_i − f°_i⟩

has the value and the gradient J_iᵀ r_i of ℓ_i at θ, and the second derivative of f_i alone:
∇²ℓ̃_i = Σ_c r_ic ∇²f_ic, without the Gauss-Newton part J_iᵀ (∂²ℓ_i/∂f²) J_i.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f3eo.closure.likelihood import Likelihood
from f3eo.closure.output import Output


@dataclass(frozen=True)
class Residuals:
    """r_i, and what ℓ̃_i has besides ⟨r_i, f_i⟩.

    Args:
        values: r_i, in the shape of f.
        offsets: ℓ_i(f°_i) − ⟨r_i, f°_i⟩, (B,).
    """

    values: Tensor
    offsets: Tensor

    def losses(self, likelihood: Likelihood | None) -> Tensor:
        """ℓ̃_i at the likelihood's parameters; (B,)."""
        return self.offsets + _products(self.values, _parameters(likelihood))


def residuals(output: Output) -> Residuals:
    """r_i of a pass whose graph is kept.

    Raises:
        TypeError: the closure returned losses instead of a likelihood.
    """
    f = _parameters(output.likelihood)
    (values,) = torch.autograd.grad(output.losses.sum(), f, retain_graph=True)
    return Residuals(values, (output.losses - _products(values, f)).detach())


def held(output: Output, of: Residuals) -> Output:
    """The output with ℓ̃_i in place of ℓ_i."""
    return replace(output, losses=of.losses(output.likelihood))


def _products(values: Tensor, f: Tensor) -> Tensor:
    products = values * f
    return products.flatten(1).sum(1) if products.ndim > 1 else products


def _parameters(likelihood: Likelihood | None) -> Tensor:
    if likelihood is None:
        raise TypeError(
            "hold_residuals=True needs the likelihood's parameters: the closure must return "
            "Categorical(logits, targets) or Gaussian(mean, targets, std), not losses"
        )
    return likelihood.parameters
