"""Paired t-tests: whether one method is better than another on the same seeds of a task."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from f3eo.bench.statistics.bootstrap import Range, bootstrap
from f3eo.bench.statistics.scores import Scores
from f3eo.bench.statistics.significance import Relation, holm, relation

FEWEST = 5
"""Least number of common seeds that are tested."""

ROUNDING = 1e-9
"""Differences below this count as zero, and spreads below this part of the differences as none."""


class Paired(NamedTuple):
    """How much better `first` is than `second` on a task.

    Attributes:
        task, first, second: names of the task and of two methods.
        advantage: mean over seeds and its bootstrap interval, positive if `first` is better.
        p: two-sided, of the paired t-test, before or after correction; nan with too few seeds.
    """

    task: str
    first: str
    second: str
    advantage: Range
    p: float

    @property
    def relation(self) -> Relation | None:
        """How `first` compares with `second` at LEVEL; None with too few seeds."""
        return relation(self.advantage.mean, self.p)

    @property
    def turned(self) -> "Paired":
        """The same comparison with `first` and `second` exchanged."""
        mean, low, high, n = self.advantage
        return Paired(self.task, self.second, self.first, Range(-mean, -high, -low, n), self.p)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t-test: mean / (s / √n) against Student's t, n − 1 degrees.

    A rank or sign-flip test has too little power here: with ten seeds the least p of Wilcoxon's or
    of the permutation test is 2/1024, which exceeds every usual level after a correction for the
    hundred comparisons of a study. Differences without spread have p = 0, or 1 if they are zero.

    Args:
        differences: one per seed.

    Returns:
        p; nan for fewer than FEWEST differences.
    """
    if len(differences) < FEWEST:
        return math.nan
    largest = max(map(abs, differences))
    if np.ptp(differences) < ROUNDING * max(1.0, largest):  # t divides by the spread
        return 1.0 if abs(differences[0]) < ROUNDING else 0.0
    test: Any = stats.ttest_1samp(differences, 0.0)
    return float(test.pvalue)


def difference(task: str, scores: Scores, first: str, second: str) -> Paired | None:
    """Compare two methods on a task, p not corrected.

    p is 1 where the mean difference and the tempered one (`Scores.tempered`) have opposite signs:
    then one method is better on most seeds and the other because of its lost runs.

    Returns:
        None without common seeds.
    """
    differences = scores.pairs(first, second)
    if not differences:
        return None
    tempered = scores.tempered(first, second)
    p = paired_p(tempered)
    if p < 1 and fmean(differences) * fmean(tempered) < 0:
        p = 1.0
    return Paired(task, first, second, bootstrap(differences), p)


def corrected(family: Sequence[Paired]) -> list[Paired]:
    """The pairs with Holm's correction over all of them that are tested (p is not nan)."""
    adjusted = iter(holm([pair.p for pair in family if not math.isnan(pair.p)]))
    return [pair if math.isnan(pair.p) else pair._replace(p=next(adjusted)) for pair in family]
