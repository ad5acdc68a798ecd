"""Average ranks of methods over tasks, Friedman's test and Nemenyi's critical difference."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from f3eo.bench.statistics.means import complete
from f3eo.bench.statistics.significance import LEVEL


class Ranks(NamedTuple):
    """Ranks of the methods within each task: 1 is the best, ties share the mean of their ranks.

    Attributes:
        average: mean rank over tasks, by method, the best first.
        tasks: those on which every method has a score; only these count.
        left_out: the other tasks.
        p: of Friedman's test that all methods are equal; nan with fewer than three methods or
            two tasks.
        critical: Nemenyi's critical difference at LEVEL; nan where `p` is nan.
    """

    average: dict[str, float]
    tasks: list[str]
    left_out: list[str]
    p: float
    critical: float

    @property
    def groups(self) -> list[list[str]]:
        """Maximal sets of neighbouring methods that span less than the critical difference."""
        order, found = list(self.average), list[list[str]]()
        for start, first in enumerate(order):
            near = [
                m for m in order[start:] if self.average[m] - self.average[first] < self.critical
            ]
            if len(near) > 1 and not (found and found[-1][-1] == near[-1]):
                found.append(near)
        return found


def rank(goodness: Mapping[str, Mapping[str, float]]) -> Ranks:
    """Rank methods by their mean score on every task where all of them have one.

    Friedman's test and Nemenyi's difference as in Demšar, JMLR 7 (2006), section 3.2.2. A method's
    mean counts its lost runs as `scores` does, so one that always diverges ranks last.

    Args:
        goodness: mean score by task and method, larger is better.
    """
    methods = list(dict.fromkeys(method for means in goodness.values() for method in means))
    tasks = complete(goodness)
    left_out = [task for task in goodness if task not in tasks]
    if not tasks:
        return Ranks({}, [], left_out, math.nan, math.nan)
    table = np.array([[goodness[task][method] for method in methods] for task in tasks])
    ranks = stats.rankdata(-table, axis=1)
    average = dict(zip(methods, (float(mean) for mean in ranks.mean(axis=0)), strict=True))
    order = sorted(average, key=average.__getitem__)
    tested = len(methods) > 2 and len(tasks) > 1
    return Ranks(
        {method: average[method] for method in order},
        tasks,
        left_out,
        _friedman(table) if tested else math.nan,
        critical_difference(len(methods), len(tasks)) if tested else math.nan,
    )


def critical_difference(methods: int, tasks: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of two average ranks, q √(k (k + 1) / 6N).

    Args:
        methods: k.
        tasks: N.
        level: of significance; default LEVEL. q is the upper quantile at this level of the
            Studentised range of k groups, divided by √2.
    """
    q = float(stats.studentized_range.ppf(1 - level, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def _friedman(table: np.ndarray) -> float:
    """Friedman's p of scores (tasks, methods); 1 if all scores tie, where scipy divides by 0."""
    if not np.ptp(table, axis=1).any():
        return 1.0
    return float(stats.friedmanchisquare(*table.T).pvalue)
