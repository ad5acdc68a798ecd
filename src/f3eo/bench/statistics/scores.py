"""The score of every run of a task, runs that diverged or failed included."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from f3eo.bench.run.metrics import Metric
from f3eo.bench.run.row import Row


class Scores(NamedTuple):
    """The scores of one task.

    Attributes:
        metric: the scored quantity, in its unit.
        values: by method and seed; a lost run has the value `floor`, or is absent if that is nan.
        lost: by method, the seeds whose run diverged, failed or ended below `floor`; methods
            without lost runs are absent.
        floor: the median score of the untrained models; nan if nothing was measured.
    """

    metric: Metric
    values: Mapping[str, Mapping[int, float]]
    lost: Mapping[str, list[int]]
    floor: float

    @property
    def sign(self) -> int:
        """The factor that makes larger better: 1 or −1."""
        return 1 if self.metric.larger_is_better else -1

    @property
    def means(self) -> dict[str, float]:
        """The mean over seeds by method, the best first."""
        means = {method: fmean(values.values()) for method, values in self.values.items()}
        return dict(sorted(means.items(), key=lambda item: -self.sign * item[1]))

    def pairs(self, first: str, second: str) -> list[float]:
        """By how much `first` is better than `second`, one value per common seed, in order."""
        return self._differences(first, second, self.floor, self.floor)

    def tempered(self, first: str, second: str) -> list[float]:
        """The differences of `pairs` for a t-test, with milder values for rare lost runs.

        A single lost run at the untrained score widens the spread so much that a method which is
        worse on every seed would pass as level because it diverged once. So where a method loses
        at most half of its seeds, its lost runs count as the worst finished run of the two methods.
        Where it loses more, they count as untrained models, as everywhere else.
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
        """Differences by seed; lost runs of `first` count as `low`, of `second` as `other_low`."""
        a, b = self._counted(first, low), self._counted(second, other_low)
        return [self.sign * (a[seed] - b[seed]) for seed in sorted(a.keys() & b.keys())]

    def _counted(self, method: str, low: float) -> dict[int, float]:
        lost = self.lost.get(method, ())
        values = self.values.get(method, {})
        return {seed: low if seed in lost else value for seed, value in values.items()}


def scores(rows: Sequence[Row], metric: Metric) -> Scores:
    """Score every run of one task.

    A run that diverged, failed or ended below an untrained model counts as an untrained model.
    Dropping such runs would reward a method that diverges; counting their last value (a loss of
    1e9, say) would let one run dominate a mean or a t-test.

    Args:
        rows: the results of one task, one per method and seed.
        metric: the scored quantity.
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
        if not math.isfinite(value):  # no run of the task measured anything
            continue
        values.setdefault(row["method"], {})[row["seed"]] = value
    return Scores(metric, values, lost, floor)


def _final(row: Row, metric: Metric) -> float | None:
    return metric.read(row["final"]) if row["status"] == "finished" else None


def _floor(rows: Sequence[Row], metric: Metric) -> float:
    """The median first point of the curves; without curves the worst final score; else nan."""
    curves = [row["curve"] for row in rows if row["curve"] and row["curve"].get(metric.column)]
    starts = [curve[metric.column][0] * metric.factor for curve in curves]
    starts = [start for start in starts if start is not None and math.isfinite(start)]
    if starts:
        return median(starts)
    ends = [value for row in rows if (value := _final(row, metric)) is not None]
    return (min if metric.larger_is_better else max)(ends, default=math.nan)
