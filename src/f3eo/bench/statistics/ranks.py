"""Average ranks of methods over tasks, and how far apart two must be to differ."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from f3eo.bench.statistics.welch import LEVEL


class Ranks(NamedTuple):
    """Methods ranked within each task, 1 for the best, ties sharing the mean of their ranks.

    Attributes:
        average: over tasks, by method, the best first.
        tasks: those that count, on which every method has a score.
        left_out: the others.
        p: of Friedman's test that all methods are equal; nan with fewer than three methods or
            two tasks.
        critical: Nemenyi's critical difference at LEVEL; nan where p is.
    """

    average: dict[str, float]
    tasks: list[str]
    left_out: list[str]
    p: float
    critical: float

    @property
    def groups(self) -> list[list[str]]:
        """The largest sets of neighbours whose ends are less than the critical difference apart."""
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
        goodness: by task and method, larger is better.
    """
    methods = list(dict.fromkeys(method for means in goodness.values() for method in means))
    tasks = [task for task, means in goodness.items() if len(means) == len(methods)]
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
    """q √(k (k + 1) / 6N): how far two of k average ranks over N tasks must be apart to differ.

    q is the upper `level` quantile of the Studentised range of k groups, divided by √2.
    """
    q = float(stats.studentized_range.ppf(1 - level, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def _friedman(table: np.ndarray) -> float:
    """Friedman's p over (tasks, methods); 1 if every task is one tie, which scipy divides by."""
    if not np.ptp(table, axis=1).any():
        return 1.0
    return float(stats.friedmanchisquare(*table.T).pvalue)
