"""Student's t interval of a mean over seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean over `n` seeds and half the width of its 95 % interval (nan for a single seed)."""

    mean: float
    half: float
    n: int


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % interval: mean ± t · s / √n, t of n − 1 degrees of freedom.

    Args:
        values: one per seed.

    Raises:
        ValueError: `values` is empty.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value, got none")
    if n == 1:
        return Interval(float(values[0]), math.nan, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(float(np.mean(values)), half_width(n) * error, n)


def half_width(n: int) -> float:
    """Half of a 95 % interval, in standard errors: Student's t with n − 1 degrees of freedom."""
    return float(stats.t.ppf(0.975, n - 1)) if n > 1 else math.nan
