"""Welch's test of every pair of methods: samples of seeds that need not be paired."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from f3eo.bench.statistics.significance import LEVEL, holm


class Difference(NamedTuple):
    """The mean of `first` minus that of `second`.

    Attributes:
        first, second: names of methods.
        mean: the difference of the means.
        low, high: its 95 % interval, not corrected.
        p: two-sided, with Holm's correction.
    """

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float

    @property
    def distinguishable(self) -> bool:
        """Whether the two differ at LEVEL."""
        return self.p < LEVEL


def differences(samples: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Test every pair of methods by Welch's two-sided t-test, with Holm's correction.

    Args:
        samples: values over seeds, by method; methods with fewer than two values are left out.

    Returns:
        One difference per pair, in the order of the methods.
    """
    methods = [method for method, values in samples.items() if len(values) > 1]
    raw = [_welch(a, b, samples[a], samples[b]) for a, b in combinations(methods, 2)]
    corrected = holm([pair.p for pair in raw])
    return [pair._replace(p=p) for pair, p in zip(raw, corrected, strict=True)]


def _welch(first: str, second: str, a: Sequence[float], b: Sequence[float]) -> Difference:
    mean = float(np.mean(a) - np.mean(b))
    if np.ptp(a) == 0 and np.ptp(b) == 0:  # without any spread the test divides by zero
        return Difference(first, second, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    with warnings.catch_warnings():  # one sample without spread is harmless
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test: Any = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Difference(first, second, mean, float(low), float(high), float(test.pvalue))
