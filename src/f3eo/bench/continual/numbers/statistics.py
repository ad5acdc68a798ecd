"""Intervals over seeds, and paired tests between two learners."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from f3eo.bench.continual.numbers.number import Number
from f3eo.bench.statistics.bootstrap import bootstrap
from f3eo.bench.statistics.paired import Paired, corrected, paired_p
from f3eo.bench.statistics.student import Interval, interval

BySeed = dict[int, float]
"""The number of each finished run, by seed."""


def by_seed(
    rows: Sequence[Mapping[str, Any]], number: Number, stream: str, metric: str, equal: str
) -> dict[str, BySeed]:
    """A number of the finished results on a stream, by learner and seed.

    Runs that diverged or failed have none, and so has a number of one stage that needs two.

    Args:
        rows: results (`f3eo.bench.continual.run.row`).
        number: which.
        stream: name of the stream.
        metric: that of the stream.
        equal: "steps" or "time".
    """
    found: dict[str, BySeed] = {}
    for row in rows:
        here = (row["stream"], row["config"]["equal"], row["kind"]) == (stream, equal, "result")
        if here and row["status"] == "finished":
            value = number.of(row["scores"], metric)
            if not isnan(value):
                found.setdefault(row["learner"], {})[row["seed"]] = value
    return found


def intervals(values: Mapping[str, BySeed]) -> dict[str, Interval]:
    """The mean over seeds and its 95 % interval by Student's t, by learner.

    Args:
        values: of `by_seed`.
    """
    return {learner: interval(list(own.values())) for learner, own in values.items()}


def compared(
    stream: str, number: Number, values: Mapping[str, BySeed], pairs: Sequence[tuple[str, str]]
) -> list[Paired]:
    """Paired t-tests between learners on their common seeds, Holm-corrected over all pairs.

    `Paired.advantage` is positive where the first is better, and its p is nan with fewer than five
    common seeds. The pairs are one family: correct those of several streams or numbers together
    with `f3eo.bench.statistics.paired.corrected`, of `compared_alone`.

    Args:
        stream: its name.
        number: tells which way is better.
        values: of `by_seed`.
        pairs: first and second learner; pairs without a common seed are left out.
    """
    return corrected(compared_alone(stream, number, values, pairs))


def compared_alone(
    stream: str, number: Number, values: Mapping[str, BySeed], pairs: Sequence[tuple[str, str]]
) -> list[Paired]:
    """As `compared`, p not corrected."""
    found = []
    for first, second in pairs:
        one, other = values.get(first, {}), values.get(second, {})
        sign = 1 if number.larger_is_better else -1
        gains = [sign * (one[seed] - other[seed]) for seed in sorted(one.keys() & other.keys())]
        if gains:
            found.append(Paired(stream, first, second, bootstrap(gains), paired_p(gains)))
    return found
