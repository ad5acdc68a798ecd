"""Samples that the model must learn by heart: their losses and gradient norms as scores."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher import Metric
from f3eo.instruments.norms import sample_norms
from f3eo.instruments.passes import Data


@dataclass(frozen=True)
class Memorisation:
    """Scores of N samples, in the order of the data; high where a label does not fit.

    Args:
        losses: ℓ_i, in nats for a likelihood; (N,), float64.
        norms: ‖D ∇ℓ_i‖, in nats per unit of θ/D; (N,), float64.
    """

    losses: Tensor
    norms: Tensor


def memorisation(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    metric: Metric | None = None,
) -> Memorisation:
    """ℓ_i and ‖D ∇ℓ_i‖ of every sample: those that still pull, such as mislabelled ones, stand out.

    Take data that is not shuffled, so that scores can be matched with samples, and a model that has
    not yet fitted wrong labels. Measured in the mode that the model is in, which is left as it was.

    Args:
        model, closure, data: see `f3eo.instruments.trace`.
        metric: D; default `Euclidean()`, D = 1.

    Raises:
        ValueError, TypeError: see `f3eo.instruments.trace`.

    Source: Paul et al. 2021, 2107.07075, for ‖∇ℓ_i‖ (GraNd); Arpit et al. 2017, 1706.05394.
    """
    found = sample_norms(model, closure, data, metric=metric)
    return Memorisation(found.losses, found.squared.sum(1).sqrt())


def area(scores: Tensor, flags: Tensor) -> float:
    """Area under the ROC curve: the probability that a flagged sample scores above another one.

        P(s₊ > s₋) + ½ P(s₊ = s₋) = (Σ_{i flagged} rank_i − n₊(n₊ + 1)/2) / (n₊ n₋)

    with ranks from 1, those of equal scores averaged. ½ is chance, 1 finds all.

    Args:
        scores: (N,).
        flags: (N,), bool: which samples are to be found.

    Raises:
        ValueError: other shapes or dtypes, scores that are NaN, or flags that are all alike.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.

    >>> area(torch.tensor([0.1, 0.9, 0.5, 0.5]), torch.tensor([False, True, True, False]))
    0.875
    """
    if scores.ndim != 1 or scores.shape != flags.shape or flags.dtype != torch.bool:
        raise ValueError(
            f"area needs scores (N,) and flags (N,) of dtype bool, received "
            f"{tuple(scores.shape)} and {tuple(flags.shape)} of {flags.dtype}"
        )
    positive = int(flags.sum())
    negative = len(flags) - positive
    if not (positive and negative) or bool(scores.isnan().any()):
        raise ValueError(
            f"area needs flagged samples, others, and scores that are numbers; received "
            f"{positive} flagged of {len(flags)}, {int(scores.isnan().sum())} scores NaN"
        )
    _, places, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[places].double()
    return float((ranks[flags].sum() - positive * (positive + 1) / 2) / (positive * negative))
