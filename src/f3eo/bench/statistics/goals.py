"""What the study was to show, counted from its data whatever it turns out to be."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from f3eo.bench.statistics.paired import Paired
from f3eo.bench.statistics.scores import Scores

OURS = "f3eo"
CLASSICS = ("sgd", "adamw", "muon")
SHARPNESS = ("sam", "asam", "penalty", "looksam")
"""The peers that look for flat minima."""

Pairs = Mapping[tuple[str, str, str], Paired]
"""By task, ours and the rival."""


class Goal(NamedTuple):
    """One goal.

    Attributes:
        claim: in words.
        wanted: the share of tasks it is to hold on.
        held: the tasks it holds on.
        missed: by task it does not hold on, because of whom.
    """

    claim: str
    wanted: float
    held: list[str]
    missed: dict[str, list[str]]

    @property
    def total(self) -> int:
        """The tasks it could be judged on."""
        return len(self.held) + len(self.missed)

    @property
    def reached(self) -> bool | None:
        """Whether it holds on enough tasks; None if it could not be judged on any."""
        return len(self.held) >= self.wanted * self.total - 1e-9 if self.total else None


class Record(NamedTuple):
    """Tasks on which ours is significantly better than, level with and worse than a rival.

    `ahead` counts the tasks with the better mean, however small the difference.
    """

    rival: str
    better: list[str]
    level: list[str]
    worse: list[str]
    ahead: int


def goals(pairs: Pairs, tasks: Mapping[str, Scores]) -> list[Goal]:
    """The three goals.

    Args:
        pairs: ours against every rival, tested as one family.
        tasks: the scores, for who the best peer is.
    """
    peers = {task: peer for task, found in tasks.items() if (peer := best_peer(found))}
    return [
        _goal(
            "significantly better than SGD, AdamW and Muon, each of them",
            0.8,
            pairs,
            {task: CLASSICS for task in tasks},
            ("better",),
        ),
        _goal(
            "level with or significantly better than the best sharpness-aware peer",
            1.0,
            pairs,
            {task: (peer,) for task, peer in peers.items()},
            ("better", "level"),
        ),
        _goal(
            "strictly ahead of SAM: significantly better",
            0.4,
            pairs,
            {task: ("sam",) for task in tasks},
            ("better",),
        ),
    ]


def best_peer(scores: Scores) -> str | None:
    """The sharpness-aware peer with the best mean; None if none ran."""
    return next((method for method in scores.means if method in SHARPNESS), None)


def records(pairs: Pairs) -> list[Record]:
    """Ours against each rival over the tasks, in order of appearance."""
    found: dict[str, Record] = {}
    for (task, first, second), pair in pairs.items():
        if first != OURS or pair.relation is None:
            continue
        record = found.setdefault(second, Record(second, [], [], [], 0))
        getattr(record, pair.relation).append(task)
        found[second] = record._replace(ahead=record.ahead + (pair.advantage.mean > 0))
    return list(found.values())


def _goal(
    claim: str,
    wanted: float,
    pairs: Pairs,
    rivals: Mapping[str, Sequence[str]],
    good: Sequence[str],
) -> Goal:
    """Judged on the tasks where every rival named for it could be tested against ours."""
    goal = Goal(claim, wanted, [], {})
    for task, names in rivals.items():
        met = [pairs.get((task, OURS, rival)) for rival in names]
        if any(pair is None or pair.relation is None for pair in met):
            continue
        if failed := [pair.second for pair in met if pair and pair.relation not in good]:
            goal.missed[task] = failed
        else:
            goal.held.append(task)
    return goal
