"""The statistics of a study, each computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from f3eo.bench.report.study_data import StudyData
from f3eo.bench.run.metrics import CALIBRATION, INT4_LOST, TEST_LOSS, Metric
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.goals import (
    OURS,
    Goal,
    Level,
    Record,
    bits_level,
    goals,
    rank_levels,
    records,
    score_levels,
)
from f3eo.bench.statistics.means import means
from f3eo.bench.statistics.paired import Paired, Relation, corrected, difference
from f3eo.bench.statistics.profiles import Ratios, ratios, time_to_target
from f3eo.bench.statistics.ranks import Ranks, rank
from f3eo.bench.statistics.scores import Scores, scores

Key = tuple[str, str, str]
"""Task, first method, second method."""


@dataclass(frozen=True)
class Analysis:
    """The statistics of a study, computed on first use.

    Args:
        study: the rows of the study.
        judged: the quantity that methods are compared by; default None, the score of each task.

    Attributes:
        tasks: the scores, by task.
    """

    study: StudyData
    judged: Metric | None = None
    tasks: dict[str, Scores] = field(init=False)

    def __post_init__(self) -> None:
        tasks = {
            task: scores(self.on(task), self.judged or self.study.metric(task))
            for task in self.study.tasks
        }
        object.__setattr__(self, "tasks", tasks)

    @cached_property
    def by_loss(self) -> "Analysis":
        """The same runs, compared by test loss on every task."""
        return Analysis(self.study, TEST_LOSS)

    @cached_property
    def by_calibration(self) -> "Analysis":
        """The same runs, compared by calibration error on every task."""
        return Analysis(self.study, CALIBRATION)

    def on(self, task: str) -> list[Row]:
        """The results of the methods on one task."""
        return [row for row in self.study.rows if row["task"] == task]

    @property
    def methods(self) -> list[str]:
        """The methods by average rank, those without a rank last, in registry order."""
        listed = self.study.methods
        order = list(self.ranks.average)
        return sorted(listed, key=lambda m: order.index(m) if m in order else len(order))

    @cached_property
    def pairs(self) -> list[Paired]:
        """Every pair of methods on every task, p not corrected; OURS is first in its pairs."""
        pairs = [
            difference(task, scored, first, second)
            for task, scored in self.tasks.items()
            for first, second in combinations(sorted(scored.values, key=lambda m: m != OURS), 2)
        ]
        return [pair for pair in pairs if pair]

    @cached_property
    def ours(self) -> dict[Key, Paired]:
        """OURS against every other method on every task, corrected over all of these pairs."""
        return _by_key(corrected([pair for pair in self.pairs if pair.first == OURS]))

    @cached_property
    def ours_by_task(self) -> dict[Key, Paired]:
        """OURS against every other method on every task, corrected within each task only."""
        return _by_key(self._within([pair for pair in self.pairs if pair.first == OURS]))

    @cached_property
    def all_pairs(self) -> dict[Key, Paired]:
        """Every pair in both orders, corrected over all pairs of its task."""
        tested = self._within(self.pairs)
        return _by_key([*tested, *(pair.turned for pair in tested)])

    @cached_property
    def ranks(self) -> Ranks:
        """Average ranks over the tasks on which every method has a result."""
        goodness = {
            task: {method: scored.sign * mean for method, mean in scored.means.items()}
            for task, scored in self.tasks.items()
            if scored.values
        }
        return rank(goodness)

    @cached_property
    def goals(self) -> list[Goal]:
        """The goals, with p-values corrected over all tasks."""
        return goals(self.ours)

    @cached_property
    def goals_by_task(self) -> list[Goal]:
        """The goals, with p-values corrected within each task."""
        return goals(self.ours_by_task)

    @cached_property
    def levels(self) -> list[Level]:
        """The numbers that OURS must reach, in the order of the goals."""
        views = {
            "score": self.ranks,
            "test loss": self.by_loss.ranks,
            "calibration": self.by_calibration.ranks,
        }
        lost, bases = means(self.study.rows, INT4_LOST), self.study.bases(OURS)
        return [*rank_levels(views), *score_levels(self.tasks), bits_level(lost, bases)]

    @cached_property
    def records(self) -> list[Record]:
        """OURS against each rival, in the order of `methods`."""
        return sorted(records(self.ours), key=lambda record: self.methods.index(record.rival))

    @cached_property
    def times(self) -> dict[str, dict[str, float]]:
        """The median nominal time to the target, by task and method; inf if never reached."""
        medians: dict[str, dict[str, float]] = {}
        for task in self.tasks:
            runs: dict[str, list[float | None]] = {}
            for row in self.on(task):
                runs.setdefault(row["method"], []).append(time(row))
            medians[task] = {method: time_to_target(times) for method, times in runs.items()}
        return medians

    @cached_property
    def ratios(self) -> Ratios:
        """Times to the target, relative to the fastest method."""
        return ratios(self.times)

    def wins(self, first: str, second: str) -> int:
        """The number of tasks on which `first` is significantly better than `second`."""
        return sum(
            pair.relation == "better"
            for (_, a, b), pair in self.all_pairs.items()
            if (a, b) == (first, second)
        )

    def against_ours(self, task: str, method: str) -> Relation | None:
        """How a method compares with OURS on a task; None where the pair is not tested."""
        pair = self.ours.get((task, OURS, method))
        return pair.turned.relation if pair else None

    def _within(self, pairs: Sequence[Paired]) -> list[Paired]:
        """The pairs, corrected within each task."""
        families = [[pair for pair in pairs if pair.task == task] for task in self.tasks]
        return [pair for family in families for pair in corrected(family)]


def time(row: Row) -> float | None:
    """Nominal time to the target, step · price in plain gradient steps; None if never reached."""
    target = row.get("target") or {}
    if row["status"] != "finished" or not target.get("reached"):
        return None
    return target["step"] * price(row)


def price(row: Row) -> float:
    """Time of a step in plain gradient steps; for a run at equal cost, its plain gradients."""
    return float(row["config"].get("price") or row["gradient_equivalents"] or 1)


def _by_key(pairs: Sequence[Paired]) -> dict[Key, Paired]:
    return {(pair.task, pair.first, pair.second): pair for pair in pairs}
