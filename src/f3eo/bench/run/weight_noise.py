"""The loss under relative noise of the weights."""

from collections.abc import Callable, Mapping
from statistics import fmean

import torch
from torch import Tensor

SIGMA = 0.1
"""Relative noise: every weight moves by about a tenth of itself."""
DRAWS = 8


def noise_response(
    loss: Callable[[Mapping[str, Tensor]], float],
    weights: Mapping[str, Tensor],
    generator: torch.Generator,
    sigma: float = SIGMA,
    draws: int = DRAWS,
) -> float:
    """E[L(w (1 + σ ε))] − L(w), ε standard normal and independent for every weight.

    Its second order is (σ²/2) Σ_i w_i² ∂²L/∂w_i², for a model that fits its samples
    (σ²/2) Tr(D F D) with D = diag |w|. The draws are pairs ±ε, whose mean has no first order: the
    expectation is the same, its error far smaller.

    Args:
        loss: weights by name -> mean loss L in nats.
        weights: parameters w by name, all of them.
        generator: draws ε; on the device of the weights.
        sigma: σ; default SIGMA.
        draws: number of noisy models, even; default DRAWS.

    Returns:
        The response in nats.

    Raises:
        ValueError: the number of draws is odd or below 2.

    Source: Petzka et al. 2021, arXiv 2001.00939 (relative flatness).
    """
    if draws < 2 or draws % 2:
        raise ValueError(f"draws are pairs ±ε, so their number is even, got {draws}")
    losses = []
    for _ in range(draws // 2):
        steps = {
            name: sigma
            * w.detach()
            * torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device)
            for name, w in weights.items()
        }
        for sign in (1, -1):
            moved = {name: w.detach() + sign * steps[name] for name, w in weights.items()}
            losses.append(loss(moved))
    return fmean(losses) - loss({name: w.detach() for name, w in weights.items()})
