"""Means, intervals and differences over seeds, from the rows of finished runs."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from f3eo.bench.run.row import Row

LEVEL = 0.05
"""Chance, per task and metric, of calling any two equal methods different."""


class Interval(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval (nan for a single seed)."""

    mean: float
    half: float
    n: int


class Difference(NamedTuple):
    """`first` minus `second`, with its 95 % interval and the p-value Holm corrected."""

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


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % interval by Student's t over the values: t · s / √n.

    Raises:
        ValueError: no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value, got none")
    if n == 1:
        return Interval(float(values[0]), math.nan, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(float(np.mean(values)), half_width(n) * error, n)


def half_width(n: int) -> float:
    """Half of a 95 % interval in standard errors: Student's t with n − 1 degrees of freedom."""
    return float(stats.t.ppf(0.975, n - 1)) if n > 1 else math.nan


def differences(samples: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Every pair of methods, by Welch's two-sided t-test with Holm's correction over the pairs.

    Args:
        samples: values over seeds, by method; methods with fewer than two are left out.

    Returns:
        One difference per pair, in the order of the methods.
    """
    methods = [method for method, values in samples.items() if len(values) > 1]
    raw = [_welch(a, b, samples[a], samples[b]) for a, b in combinations(methods, 2)]
    corrected = holm([pair.p for pair in raw])
    return [pair._replace(p=p) for pair, p in zip(raw, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: max over the smaller p_(j), j ≤ i, of min(1, (m − j + 1) p_(j)).

    Args:
        p: the m p-values of one family, in any order.

    Returns:
        The corrected ones, in the same order.
    """
    corrected, largest = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, p[index] * (len(p) - rank)))
        corrected[index] = largest
    return corrected


def _welch(first: str, second: str, a: Sequence[float], b: Sequence[float]) -> Difference:
    mean = float(np.mean(a) - np.mean(b))
    if np.ptp(a) == 0 and np.ptp(b) == 0:  # no spread at all: the test would divide by zero
        return Difference(first, second, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    with warnings.catch_warnings():  # that one of them has no spread is no harm
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test: Any = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Difference(first, second, mean, float(low), float(high), float(test.pvalue))


def finals(rows: Sequence[Row]) -> pl.DataFrame:
    """The last value of each metric, one line per finished run."""
    return pl.DataFrame(
        [
            {"task": row["task"], "method": row["method"], "seed": row["seed"], **row["final"]}
            for row in rows
            if row["status"] == "finished"
        ],
        infer_schema_length=None,
    )


def curves(rows: Sequence[Row]) -> pl.DataFrame:
    """Mean and half a 95 % interval over seeds at each measurement of each method's training.

    Returns:
        One line per task, method and point, with `METRIC` and `METRIC_half` columns.
    """
    runs = [
        pl.DataFrame(row["curve"])
        .cast(pl.Float64)
        .with_row_index("point")
        .with_columns(task=pl.lit(row["task"]), method=pl.lit(row["method"]))
        for row in rows
        if row["status"] == "finished"
    ]
    if not runs:
        return pl.DataFrame()
    frame = pl.concat(runs)
    metrics = [name for name in frame.columns if name not in ("task", "method", "point")]
    spread = frame.group_by("task", "method", "point").agg(
        pl.len().alias("n"),
        *[pl.col(name).mean() for name in metrics],
        *[(pl.col(name).std() / pl.len().sqrt()).alias(f"{name}_half") for name in metrics],
    )
    widths = pl.col("n").map_elements(half_width, return_dtype=pl.Float64)
    return spread.with_columns(pl.col(f"{name}_half") * widths for name in metrics).sort(
        "task", "method", "point"
    )
