"""Bootstrap intervals of a mean over seeds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999


class Range(NamedTuple):
    """A mean over `n` values and its interval; low and high are nan for a single value."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values: Sequence[float], seed: int = 0) -> Range:
    """The mean and its percentile bootstrap interval at LEVEL.

    Values are drawn anew with replacement RESAMPLES times; low and high are quantiles of the
    means. With ten values it holds the true mean about 90 times in 100 rather than 95: it shows
    spread, decisions are `paired`'s. Percentile, because BCa is undefined where most seeds agree.

    Args:
        values: one per seed; for a paired difference, the differences.
        seed: of the drawing; the same values give the same interval; default 0.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("a bootstrap needs at least one value, got none")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Range(mean, np.nan, np.nan, 1)
    if np.ptp(values) == 0:  # scipy warns; there is nothing to draw
        return Range(mean, mean, mean, len(values))
    drawn: Any = stats.bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return Range(mean, float(low), float(high), len(values))
