"""Whether one method is better than another on a task, seed by seed."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from f3eo.bench.statistics.bootstrap import Range, bootstrap
from f3eo.bench.statistics.scores import Scores
from f3eo.bench.statistics.welch import LEVEL, holm

FEWEST = 5
"""Fewer seeds in common than this give no verdict."""

ROUNDING = 1e-9
"""Differences of scores below this, in % or nats, are none."""

Relation = Literal["better", "level", "worse"]


class Paired(NamedTuple):
    """How much better `first` is than `second` on a task.

    Attributes:
        task, first, second: names.
        advantage: mean over seeds and its bootstrap interval, positive if `first` is better.
        p: two-sided, of the paired t-test, corrected or not; nan with too few seeds.
    """

    task: str
    first: str
    second: str
    advantage: Range
    p: float

    @property
    def relation(self) -> Relation | None:
        """What `first` is, at LEVEL; None with too few seeds."""
        if math.isnan(self.p):
            return None
        if self.p >= LEVEL:
            return "level"
        return "better" if self.advantage.mean > 0 else "worse"

    @property
    def turned(self) -> "Paired":
        """The same, seen from `second`."""
        mean, low, high, n = self.advantage
        return Paired(self.task, self.second, self.first, Range(-mean, -high, -low, n), self.p)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t-test: mean / (s / √n) against Student's t, n − 1 degrees.

    A t-test, because a rank or sign-flip test cannot speak here: with ten seeds the least p of
    Wilcoxon's or the permutation test is 2/1024, which times the hundred comparisons of a study is
    above any level. Differences without any spread have p = 0, or 1 if they are zero.

    Returns:
        nan for fewer than FEWEST differences.
    """
    if len(differences) < FEWEST:
        return math.nan
    if np.ptp(differences) < ROUNDING:  # t divides by the spread
        return 1.0 if abs(differences[0]) < ROUNDING else 0.0
    test: Any = stats.ttest_1samp(differences, 0.0)
    return float(test.pvalue)


def difference(task: str, scores: Scores, first: str, second: str) -> Paired | None:
    """How much better the first is, with its p before any correction; None without common seeds."""
    differences = scores.pairs(first, second)
    if not differences:
        return None
    tempered = scores.tempered(first, second)
    p = paired_p(tempered)
    if p < 1 and fmean(differences) * fmean(tempered) < 0:  # better on most seeds, lost on others
        p = 1.0
    return Paired(task, first, second, bootstrap(differences), p)


def corrected(family: Sequence[Paired]) -> list[Paired]:
    """The pairs with Holm's correction over all of them that have a verdict."""
    adjusted = iter(holm([pair.p for pair in family if not math.isnan(pair.p)]))
    return [pair if math.isnan(pair.p) else pair._replace(p=next(adjusted)) for pair in family]
