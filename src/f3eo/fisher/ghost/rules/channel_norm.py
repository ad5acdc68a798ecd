"""Normalisations with a scale per channel, z = γ∘x̂ + β: G_i = Σ_t δ_t∘x̂_t and Σ_t δ_t.

Group and instance normalisation, and batch normalisation with frozen statistics.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Term


def _affine(
    delta: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    normalised: Callable[[Tensor], Tensor],
) -> dict[str, Term]:
    """Weight and bias (C,); delta and input are (B, k, C, …), `normalised` takes (B·k, C, …)."""
    positions = (1, *range(3, delta.ndim))
    terms: dict[str, Term] = {}
    if weight is not None:
        normal = normalised(input.flatten(0, 1)).view(input.shape)
        terms["weight"] = Dense((delta * normal).sum(positions))
    if bias is not None:
        terms["bias"] = Dense(delta.sum(positions))
    return terms


@register(F.group_norm)
def group_norm(
    delta: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Statistics of each sample's groups of channels."""
    return _affine(delta, input, weight, bias, lambda x: F.group_norm(x, num_groups, eps=eps))


@register(F.instance_norm)
def instance_norm(
    delta: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Statistics of each sample's channels, or frozen ones; running ones are left alone."""
    frozen = (None, None) if use_input_stats else (running_mean, running_var)

    def normalised(x: Tensor) -> Tensor:
        return F.instance_norm(x, *frozen, use_input_stats=use_input_stats, eps=eps)

    return _affine(delta, input, weight, bias, normalised)


@register(F.batch_norm)
def batch_norm(
    delta: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> dict[str, Term]:
    """Frozen statistics; those of the batch are refused before a rule is asked."""
    return _affine(
        delta, input, weight, bias, lambda x: F.batch_norm(x, running_mean, running_var, eps=eps)
    )
