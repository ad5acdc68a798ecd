"""The significance level, Holm's correction, and the three outcomes of a comparison."""

import math
from collections.abc import Sequence
from typing import Literal

LEVEL = 0.05
"""Family-wise probability of a false difference: per task and metric, or per family of tests."""

Relation = Literal["better", "level", "worse"]
"""Significantly better, not distinguishable, significantly worse."""


def relation(mean: float, p: float) -> Relation | None:
    """How the first of two compares with the second at LEVEL; None where p is nan, not tested.

    Args:
        mean: difference, positive where the first is better.
        p: of its test, corrected.
    """
    if math.isnan(p):
        return None
    if p >= LEVEL:
        return "level"
    return "better" if mean > 0 else "worse"


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: max over the smaller p_(j), j ≤ i, of min(1, (m − j + 1) p_(j)).

    Args:
        p: the m p-values of one family, in any order.

    Returns:
        The corrected p-values, in the same order.
    """
    corrected, largest = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, p[index] * (len(p) - rank)))
        corrected[index] = largest
    return corrected
