"""The settings that tuning tries, drawn before the first run, and the choice among them.

Every learner gets the same number of settings: its defaults, then points of one scrambled Sobol
sequence, whose dimensions are the options of all learners. So all meet the same rates, and those
with an option in common the same values of it, or the same places in ranges of their own: what a
stream forgets depends on the rate more than on anything else, and a few rates drawn for each
learner would make luck decide. A setting is scored by the average score over the first stages of
the stream, on held-out training samples, with a seed that no result uses.
"""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, FloatDistribution

from f3eo.bench.continual.learners import PEERS, Peer
from f3eo.bench.continual.numbers import NUMBERS
from f3eo.bench.plan.points import points, short
from f3eo.bench.run.row import Row

SEED = 1000
"""Seed of the trials; results use the seeds 0, 1, …"""
SAME = {"penalty": "strength"}
"""λ of a quadratic penalty is named so where an option `strength` is another thing."""


def draw(stream: str, peer: Peer, trials: int) -> list[dict[str, Any]]:
    """The settings of a learner on a stream, as changes to its defaults.

    More trials extend the list; the first settings stay the same.

    Args:
        stream: its name seeds the sequence.
        peer: its defaults are the first setting.
        trials: number of settings.
    """
    names = sorted({SAME.get(name, name) for every in PEERS.values() for name in every.space})
    units = points({name: FloatDistribution(0, 1) for name in names}, stream, trials)[1:]
    first = {name: peer.defaults[name] for name in peer.space}
    others = [
        {name: _at(unit[SAME.get(name, name)], range_) for name, range_ in peer.space.items()}
        for unit in units
    ]
    return [first, *others][:trials]


def _at(unit: float, range_: BaseDistribution) -> float:
    """The number of a range that lies at a part of its way, in three digits."""
    assert isinstance(range_, FloatDistribution)
    if range_.log:
        return short(range_.low * math.exp(unit * math.log(range_.high / range_.low)))
    return short(range_.low + unit * (range_.high - range_.low))


class Setting(NamedTuple):
    """Options and the mean over seeds of their average score, higher being better, and loss."""

    options: Mapping[str, Any]
    average: float
    loss: float


def best(rows: Sequence[Row], metric: str) -> Setting | None:
    """The setting with the best average score; the loss decides ties, then the first.

    Args:
        rows: trials of one learner on one stream; settings that diverged or failed with any seed
            are ignored.
        metric: that of the stream.

    Returns:
        None if no setting finished.
    """
    trials: dict[str, list[Row]] = {}
    for row in rows:
        trials.setdefault(json.dumps(row["config"]["options"], sort_keys=True), []).append(row)
    finished = [own for own in trials.values() if all(row["status"] == "finished" for row in own)]
    settings = [
        Setting(
            own[0]["config"]["options"],
            fmean(NUMBERS["average"].of(row["scores"], metric) for row in own),
            fmean(fmean(row["losses"][-1]) for row in own),
        )
        for own in finished
    ]
    return max(settings, key=lambda one: (round(one.average, 9), -one.loss), default=None)
