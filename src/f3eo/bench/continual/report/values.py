"""A quantity of every run at one place, runs that diverged or failed included."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from f3eo.bench.continual.report.measure import Measure
from f3eo.bench.continual.report.quantities import Quantity
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.student import Interval, interval


class Values(NamedTuple):
    """A quantity of the runs of one stream at one budget.

    Attributes:
        quantity, measure: what it is, and what the stream is scored by.
        runs: the values as shown, by learner and seed. A run that diverged or failed has the worst
            value of all finished runs: dropping it would reward a learner that diverges, and its
            own last value may be good (an untrained model forgets nothing). Learners without a
            value are absent.
        lost: by learner, the seeds whose run diverged or failed; empty entries are absent.
    """

    quantity: Quantity
    measure: Measure
    runs: Mapping[str, Mapping[int, float]]
    lost: Mapping[str, Sequence[int]]

    @property
    def sign(self) -> int:
        """The factor that makes larger better: 1 or −1."""
        return self.quantity.sign(self.measure)

    @property
    def means(self) -> dict[str, Interval]:
        """The mean and its 95 % interval over seeds by learner, the best first."""
        means = {learner: interval(list(runs.values())) for learner, runs in self.runs.items()}
        return dict(sorted(means.items(), key=lambda item: -self.sign * item[1].mean))


def values(rows: Sequence[Row], quantity: Quantity, measure: Measure) -> Values:
    """Read a quantity from the rows of one stream at one budget.

    Args:
        rows: one per learner and seed.
        quantity: what is read.
        measure: what the stream is scored by.
    """
    found: dict[str, dict[int, float]] = {}
    lost: dict[str, list[int]] = {}
    for row in rows:
        if row["status"] != "finished":
            lost.setdefault(row["learner"], []).append(row["seed"])
        elif (value := quantity.read(row, measure)) is not None:
            found.setdefault(row["learner"], {})[row["seed"]] = value
    ends = [value for runs in found.values() for value in runs.values()]
    if ends:
        worst = min(ends, key=lambda value: quantity.sign(measure) * value)
        for learner, seeds in lost.items():
            found.setdefault(learner, {}).update(dict.fromkeys(seeds, worst))
    runs = {learner: dict(sorted(by_seed.items())) for learner, by_seed in found.items()}
    return Values(quantity, measure, runs, lost)
