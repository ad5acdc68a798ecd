"""The goals of a study: claims of significance, counted over tasks, and numbers to reach."""

from collections.abc import Mapping
from typing import NamedTuple

from f3eo.bench.statistics.paired import Paired
from f3eo.bench.statistics.ranks import Ranks
from f3eo.bench.statistics.scores import Scores

OURS = "f3eo"
SHARPNESS = ("sam", "asam", "penalty", "looksam")
"""Peers that search for flat minima."""

WINS: Mapping[str, float] = {"sam": 0.5, "muon": 0.5, "sgd": 0.75, "adamw": 0.75}
"""By rival, the share of tasks on which OURS must be significantly better: 6 or 9 of 12."""
SCORES: Mapping[str, float] = {
    "fashion-cnn-noise40": 80.5,
    "fashion-cnn": 85.5,
    "fashion-mlp": 85.7,
    "shakespeare-char": 1.935,
}
"""By task, the mean score that OURS must reach, in % or nats: about the best of the first study."""
RANKS: Mapping[str, float] = {"score": 3.0, "test loss": 2.5, "calibration": 2.5}
"""By judged quantity, the largest average rank of OURS, which must be the first."""
BITS = 0.5
"""The largest accuracy that OURS loses to 4-bit weights, over what its bases lose."""

Pairs = Mapping[tuple[str, str, str], Paired]
"""By task, first and second method."""


class Goal(NamedTuple):
    """The claim that OURS is significantly better than a rival, and worse on no task.

    Attributes:
        rival: name of a method.
        wanted: the share of tasks on which OURS must be better, in [0, 1].
        held: the tasks on which it is.
        missed: the other tasks.
        worse: those of them on which OURS is significantly worse.
    """

    rival: str
    wanted: float
    held: list[str]
    missed: list[str]
    worse: list[str]

    @property
    def total(self) -> int:
        """The number of tasks on which the claim could be tested."""
        return len(self.held) + len(self.missed)

    @property
    def reached(self) -> bool | None:
        """Whether the claim holds; None if it could be tested on no task."""
        if not self.total:
            return None
        return len(self.held) >= self.wanted * self.total - 1e-9 and not self.worse


class Level(NamedTuple):
    """A number of OURS that must reach a limit.

    Attributes:
        claim: what the number is, in words.
        limit: the limit, which counts as reached.
        found: the number; None if the study does not give it.
        larger_is_better: whether the number must be at least the limit; default False, at most.
        leader: the method that is first, where OURS must be; default "", no matter.
    """

    claim: str
    limit: float
    found: float | None
    larger_is_better: bool = False
    leader: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the number reaches its limit, and OURS leads where it must; None without one."""
        if self.found is None:
            return None
        near = self.found >= self.limit if self.larger_is_better else self.found <= self.limit
        return near and self.leader in ("", OURS)


class Record(NamedTuple):
    """The tasks on which OURS is significantly better than, level with and worse than a rival.

    Attributes:
        rival: name of a method.
        better, level, worse: names of tasks.
        ahead: number of tasks on which the mean of OURS is better, significantly or not.
    """

    rival: str
    better: list[str]
    level: list[str]
    worse: list[str]
    ahead: int


def goals(pairs: Pairs) -> list[Goal]:
    """The claims of significance, one per rival of WINS.

    Args:
        pairs: OURS against every rival, tested as one family; a task counts for a rival where it
            was tested.
    """
    known = {record.rival: record for record in records(pairs)}
    empty = Record("", [], [], [], 0)
    return [
        Goal(rival, wanted, found.better, [*found.level, *found.worse], found.worse)
        for rival, wanted in WINS.items()
        for found in [known.get(rival, empty)]
    ]


def rank_levels(ranks: Mapping[str, Ranks]) -> list[Level]:
    """The average rank of OURS by each judged quantity of RANKS.

    Args:
        ranks: by judged quantity.
    """
    return [
        Level(f"average rank by {name}", limit, found.get(OURS), leader=next(iter(found), ""))
        for name, limit in RANKS.items()
        for found in [ranks[name].average]
    ]


def score_levels(tasks: Mapping[str, Scores]) -> list[Level]:
    """The mean score of OURS on each task of SCORES that the study has.

    Args:
        tasks: scores by task.
    """
    return [
        Level(
            f"{tasks[task].metric.name.lower()} on {task}",
            limit,
            tasks[task].means.get(OURS),
            tasks[task].metric.larger_is_better,
        )
        for task, limit in SCORES.items()
        if task in tasks
    ]


def bits_level(lost: Mapping[str, Mapping[str, float]], bases: Mapping[str, str]) -> Level:
    """Accuracy that OURS loses to 4-bit weights over what its bases lose, each summed over tasks.

    The tasks are those where both are known. Where the bases lose nothing there is no number.

    Args:
        lost: mean accuracy lost, by task and method.
        bases: the base optimizer of OURS, by task.
    """
    pairs = [
        (on_task[OURS], on_task[base])
        for task, on_task in lost.items()
        if (base := bases.get(task, "")) in on_task and OURS in on_task
    ]
    ours, base = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    ratio = ours / base if base > 0 else None
    return Level("accuracy lost to 4-bit weights, over that of its bases", BITS, ratio)


def records(pairs: Pairs) -> list[Record]:
    """One record per rival, in order of appearance."""
    found: dict[str, Record] = {}
    for (task, first, second), pair in pairs.items():
        if first != OURS or pair.relation is None:
            continue
        record = found.setdefault(second, Record(second, [], [], [], 0))
        getattr(record, pair.relation).append(task)
        found[second] = record._replace(ahead=record.ahead + (pair.advantage.mean > 0))
    return list(found.values())
