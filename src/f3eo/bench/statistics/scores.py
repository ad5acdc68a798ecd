"""What each run of a task counts for, those that diverged or failed included."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from f3eo.bench.run.metrics import Metric
from f3eo.bench.run.row import Row


class Scores(NamedTuple):
    """The scores of one task.

    Attributes:
        metric: what is scored, in its unit.
        values: by method and seed; lost runs count as `floor`, and none does if that is nan.
        lost: by method, the seeds whose run diverged, failed or ended below `floor`; methods
            without any are absent.
        floor: the median score of the untrained models; nan if nothing was ever measured.
    """

    metric: Metric
    values: Mapping[str, Mapping[int, float]]
    lost: Mapping[str, list[int]]
    floor: float

    @property
    def sign(self) -> int:
        """Times this, larger is better."""
        return 1 if self.metric.larger_is_better else -1

    @property
    def means(self) -> dict[str, float]:
        """By method, over its seeds, the best first."""
        found = {method: fmean(values.values()) for method, values in self.values.items()}
        return dict(sorted(found.items(), key=lambda item: -self.sign * item[1]))

    def pairs(self, first: str, second: str) -> list[float]:
        """By how much `first` is better, for each seed both have; in order of the seeds."""
        return self._differences(first, second, self.floor, self.floor)

    def tempered(self, first: str, second: str) -> list[float]:
        """The same for a test, for which the fall to an untrained model is too deep.

        One fall among ten seeds widens the spread so that a method that is worse on every seed
        would pass for level *because* it fell. The lost runs of a method that loses at most half of
        its seeds therefore count as the worst finished run of the two; those of one that loses more
        as untrained models, as everywhere else.
        """
        ends = [
            value
            for method in (first, second)
            for seed, value in self.values.get(method, {}).items()
            if seed not in self.lost.get(method, ())
        ]
        worst = min(ends, key=lambda value: self.sign * value, default=self.floor)
        rare = [
            2 * len(self.lost.get(method, ())) <= len(self.values.get(method, ()))
            for method in (first, second)
        ]
        return self._differences(first, second, *(worst if few else self.floor for few in rare))

    def _differences(self, first: str, second: str, low: float, other_low: float) -> list[float]:
        """With what a lost run of the one and of the other counts for."""
        a, b = self._counted(first, low), self._counted(second, other_low)
        return [self.sign * (a[seed] - b[seed]) for seed in sorted(a.keys() & b.keys())]

    def _counted(self, method: str, low: float) -> dict[int, float]:
        lost = self.lost.get(method, ())
        values = self.values.get(method, {})
        return {seed: low if seed in lost else value for seed, value in values.items()}


def scores(rows: Sequence[Row], metric: Metric) -> Scores:
    """The scores of one task, no run left out.

    A run that diverged, failed or ended below an untrained model counts as an untrained model:
    dropping it would reward a method for its accidents, and counting what it ended with (a loss of
    1e9, say) would let one accident drown the other seeds in a mean or a t-test.

    Args:
        rows: the results of one task, one per method and seed.
        metric: what to score by.
    """
    floor = _floor(rows, metric)
    sign = 1 if metric.larger_is_better else -1
    values: dict[str, dict[int, float]] = {}
    lost: dict[str, list[int]] = {}
    for row in rows:
        value = _final(row, metric)
        if value is None or sign * value < sign * floor:
            lost.setdefault(row["method"], []).append(row["seed"])
            value = floor
        if not math.isfinite(value):  # no run of the task ever measured anything
            continue
        values.setdefault(row["method"], {})[row["seed"]] = value
    return Scores(metric, values, lost, floor)


def _final(row: Row, metric: Metric) -> float | None:
    value = (row["final"] or {}).get(metric.column) if row["status"] == "finished" else None
    return value * metric.factor if value is not None and math.isfinite(value) else None


def _floor(rows: Sequence[Row], metric: Metric) -> float:
    """The median of the first points; without curves, the worst score; without these, nan."""
    curves = [row["curve"] for row in rows if row["curve"] and row["curve"].get(metric.column)]
    starts = [curve[metric.column][0] * metric.factor for curve in curves]
    starts = [start for start in starts if start is not None and math.isfinite(start)]
    if starts:
        return median(starts)
    ends = [value for row in rows if (value := _final(row, metric)) is not None]
    return (min if metric.larger_is_better else max)(ends, default=math.nan)
