"""The method: descend the trace where that leaves the loss alone."""

import torch
from torch import Tensor

from f3eo.tensors import Vector, inner, plus
from f3eo.updates.rule import Rule


class Decoupled(Rule):
    """update = g + λ h⊥, h⊥ = h − (⟨h, D g⟩/⟨g, D g⟩) g over all parameters together.

    ⟨g, D h⊥⟩ = 0: to first order the structure term does not change what the step does to the loss.
    D is the base optimizer's preconditioner (identity for SGD). (f3eo-theory, "解耦策略")
    """

    def direction(self, gradient: Vector, structure: Vector, metric: Vector | None) -> list[Tensor]:
        """See `Rule.direction`: h⊥; h itself where g is zero."""
        return _orthogonal(gradient, structure, metric)


class DecoupledPerTensor(Rule):
    """As `Decoupled`, but with a projection of its own in every tensor: ⟨g_p, D h⊥_p⟩ = 0 for each p.

    A different method, and a stricter one: as many directions are removed as there are tensors.
    """

    def direction(self, gradient: Vector, structure: Vector, metric: Vector | None) -> list[Tensor]:
        """See `Rule.direction`."""
        return [
            _orthogonal([g], [h], None if metric is None else [metric[k]])[0]
            for k, (g, h) in enumerate(zip(gradient, structure, strict=True))
        ]


def _orthogonal(g: Vector, h: Vector, metric: Vector | None) -> list[Tensor]:
    length = inner(g, g, metric)
    share = torch.where(length > 0, inner(g, h, metric) / length, torch.zeros_like(length))
    rest = plus(h, g, -share)
    # Once more: where h is nearly parallel to g, rounding leaves a part of g in the small difference.
    left = torch.where(length > 0, inner(g, rest, metric) / length, torch.zeros_like(length))
    return plus(rest, g, -left)
