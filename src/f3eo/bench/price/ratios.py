"""Ratios of times within a round, and their quartiles."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Quartiles(NamedTuple):
    """A median and the quartiles around it, with linear interpolation between values."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """The quartiles of at least one value."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Quartiles(float(median), float(low), float(high))


def time_ratios(rounds: Sequence[Mapping[str, float]], name: str, reference: str) -> list[float]:
    """Time of one runner over that of another, for each round that has both.

    Args:
        rounds: seconds by name; see `f3eo.bench.price.timing.Timing`.
        name: the runner in the numerator.
        reference: the runner in the denominator.
    """
    return [
        seconds[name] / seconds[reference]
        for seconds in rounds
        if name in seconds and reference in seconds
    ]
