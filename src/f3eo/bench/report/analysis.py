"""Everything a report says of a study, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from f3eo.bench.report.findings import Findings
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.goals import OURS, Goal, Record, goals, records
from f3eo.bench.statistics.paired import Paired, Relation, corrected, difference
from f3eo.bench.statistics.profiles import Ratios, ratios, time_to_target
from f3eo.bench.statistics.ranks import Ranks, rank
from f3eo.bench.statistics.scores import Scores, scores

Key = tuple[str, str, str]
"""Task, first, second."""


@dataclass(frozen=True)
class Analysis:
    """The statistics of a study; each is computed when first asked for.

    Args:
        study: what was measured.
    """

    study: Findings
    tasks: dict[str, Scores] = field(init=False)

    def __post_init__(self) -> None:
        found = {task: scores(self.on(task), self.study.metric(task)) for task in self.study.tasks}
        object.__setattr__(self, "tasks", found)

    def on(self, task: str) -> list[Row]:
        """The results of the methods on one task."""
        return [row for row in self.study.rows if row["task"] == task]

    @property
    def methods(self) -> list[str]:
        """The methods, by average rank where there is one, else as they are listed."""
        listed = self.study.methods
        order = list(self.ranks.average)
        return sorted(listed, key=lambda m: order.index(m) if m in order else len(order))

    @cached_property
    def pairs(self) -> list[Paired]:
        """Every pair of methods on every task, uncorrected; ours comes first in its pairs."""
        found = [
            difference(task, given, first, second)
            for task, given in self.tasks.items()
            for first, second in combinations(sorted(given.values, key=lambda m: m != OURS), 2)
        ]
        return [pair for pair in found if pair]

    @cached_property
    def ours(self) -> dict[Key, Paired]:
        """Ours against every other method on every task, corrected over all of these."""
        return _by_key(corrected([pair for pair in self.pairs if pair.first == OURS]))

    @cached_property
    def ours_by_task(self) -> dict[Key, Paired]:
        """The same, corrected within each task only."""
        mine = [pair for pair in self.pairs if pair.first == OURS]
        return _by_key(self._within(mine))

    @cached_property
    def all_pairs(self) -> dict[Key, Paired]:
        """Every pair, both ways round, corrected over all pairs of its task."""
        tested = self._within(self.pairs)
        return _by_key([*tested, *(pair.turned for pair in tested)])

    @cached_property
    def ranks(self) -> Ranks:
        """Average ranks over the tasks that every method has a result on."""
        good = {
            task: {method: found.sign * mean for method, mean in found.means.items()}
            for task, found in self.tasks.items()
        }
        return rank(good)

    @cached_property
    def goals(self) -> list[Goal]:
        """What was to be shown, by the correction over everything."""
        return goals(self.ours, self.tasks)

    @cached_property
    def goals_by_task(self) -> list[Goal]:
        """The same, by the correction within each task."""
        return goals(self.ours_by_task, self.tasks)

    @cached_property
    def records(self) -> list[Record]:
        """Ours against each rival."""
        found = records(self.ours)
        return sorted(found, key=lambda record: self.methods.index(record.rival))

    @cached_property
    def times(self) -> dict[str, dict[str, float]]:
        """By task and method, the median nominal time to the target; inf for never."""
        found: dict[str, dict[str, float]] = {}
        for task in self.tasks:
            runs: dict[str, list[float | None]] = {}
            for row in self.on(task):
                runs.setdefault(row["method"], []).append(time(row))
            found[task] = {method: time_to_target(times) for method, times in runs.items()}
        return found

    @cached_property
    def ratios(self) -> Ratios:
        """Times to the target over those of the fastest method."""
        return ratios(self.times)

    def wins(self, first: str, second: str) -> int:
        """The tasks on which one method is significantly better than another."""
        return sum(
            pair.relation == "better"
            for (_, a, b), pair in self.all_pairs.items()
            if (a, b) == (first, second)
        )

    def against_ours(self, task: str, method: str) -> Relation | None:
        """What a method is, compared with ours."""
        pair = self.ours.get((task, OURS, method))
        return pair.turned.relation if pair else None

    def _within(self, pairs: Sequence[Paired]) -> list[Paired]:
        tasks = [[pair for pair in pairs if pair.task == task] for task in self.tasks]
        return [pair for mine in tasks for pair in corrected(mine)]


def time(row: Row) -> float | None:
    """Nominal time of a run to the target, step · price in plain gradient steps; None for never."""
    target = row.get("target") or {}
    if row["status"] != "finished" or not target.get("reached"):
        return None
    return target["step"] * price(row)


def price(row: Row) -> float:
    """Time of a step in plain gradient steps; of a run at equal cost, its gradients."""
    return float(row["config"].get("price") or row["gradient_equivalents"] or 1)


def _by_key(pairs: Sequence[Paired]) -> dict[Key, Paired]:
    return {(pair.task, pair.first, pair.second): pair for pair in pairs}
