"""Paired differences of two learners over seeds: mean, interval, corrected p."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from f3eo.bench.continual.report.values import Values
from f3eo.bench.statistics.paired import paired_p
from f3eo.bench.statistics.significance import Relation, holm, relation
from f3eo.bench.statistics.student import interval

Key = TypeVar("Key", bound=Hashable)


class Difference(NamedTuple):
    """By how much one learner is better than another.

    Attributes:
        mean: over seeds, positive where the first is better.
        low, high: its 95 % interval, by Student's t, not corrected; nan for one seed.
        n: number of seeds that both have.
        p: two-sided, of the paired t-test, before or after correction; nan with too few seeds.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float

    @property
    def relation(self) -> Relation | None:
        """How the first compares with the second at LEVEL; None with too few seeds."""
        return relation(self.mean, self.p)


def difference(advantages: Sequence[float]) -> Difference | None:
    """The mean advantage, its interval and the p of the paired t-test, not corrected.

    Args:
        advantages: one per seed, positive where the first is better.

    Returns:
        None for no seed.
    """
    if not advantages:
        return None
    mean, half, n = interval(advantages)
    return Difference(mean, mean - half, mean + half, n, paired_p(advantages))


def advantages(values: Values, first: str, second: str) -> dict[int, float]:
    """By how much `first` is better than `second`, by seed that both have."""
    a, b = values.runs.get(first, {}), values.runs.get(second, {})
    return {seed: values.sign * (a[seed] - b[seed]) for seed in sorted(a.keys() & b.keys())}


def compare(values: Values, first: str, second: str) -> Difference | None:
    """`first` against `second` on the same seeds; None without common seeds."""
    return difference(list(advantages(values, first, second).values()))


def corrected(family: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """The differences with Holm's correction over those that are tested (p is not nan)."""
    adjusted = iter(holm([d.p for d in family.values() if not math.isnan(d.p)]))
    return {
        key: d if math.isnan(d.p) else d._replace(p=next(adjusted)) for key, d in family.items()
    }


def not_worse(values: Values, first: str, second: str) -> bool | None:
    """Whether `first` is at least equal to `second`: the interval lies above minus the margin.

    Equal is shown, not assumed: with few seeds, "not significantly worse" holds for anything.

    Returns:
        None with fewer than two common seeds.
    """
    found = compare(values, first, second)
    if found is None or found.n < 2:
        return None
    return found.low >= -values.measure.margin(values.means[second].mean)
