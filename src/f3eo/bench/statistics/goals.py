"""The goals of the study, fixed before it ran, and the tasks on which each of them holds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from f3eo.bench.statistics.paired import Paired
from f3eo.bench.statistics.scores import Scores

OURS = "f3eo"
CLASSICS = ("sgd", "adamw", "muon")
SHARPNESS = ("sam", "asam", "penalty", "looksam")
"""Peers that search for flat minima."""

Pairs = Mapping[tuple[str, str, str], Paired]
"""By task, first and second method."""


class Goal(NamedTuple):
    """A claim about OURS and the tasks on which it holds.

    Attributes:
        claim: the claim, in words.
        wanted: the share of tasks on which it must hold, in [0, 1].
        held: the tasks on which it holds.
        missed: the rivals that refute it, by task.
    """

    claim: str
    wanted: float
    held: list[str]
    missed: dict[str, list[str]]

    @property
    def total(self) -> int:
        """The number of tasks on which the claim could be tested."""
        return len(self.held) + len(self.missed)

    @property
    def reached(self) -> bool | None:
        """Whether the claim holds on enough tasks; None if it could be tested on none."""
        return len(self.held) >= self.wanted * self.total - 1e-9 if self.total else None


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


def goals(pairs: Pairs, tasks: Mapping[str, Scores]) -> list[Goal]:
    """The three goals, counted.

    Args:
        pairs: OURS against every rival, tested as one family.
        tasks: scores by task; they decide which sharpness-aware peer is the best.
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
    """One record per rival, in order of appearance."""
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
    """Count a goal on the tasks where each of its rivals could be tested against OURS.

    Args:
        claim, wanted: see `Goal`.
        pairs: OURS against every rival.
        rivals: names of the rivals, by task.
        good: relations that support the claim.
    """
    goal = Goal(claim, wanted, [], {})
    for task, names in rivals.items():
        tested = [pairs.get((task, OURS, rival)) for rival in names]
        if any(pair is None or pair.relation is None for pair in tested):
            continue
        if failed := [pair.second for pair in tested if pair and pair.relation not in good]:
            goal.missed[task] = failed
        else:
            goal.held.append(task)
    return goal
