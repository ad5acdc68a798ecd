"""The settings that tuning tries, drawn before the first run, and the choice among them.

As in `f3eo.bench.plan.tuning`, every learner gets the same number of settings: its defaults, then
points of scrambled Sobol sequences. All learners get the same rates: what a stream forgets depends
on the rate more than on anything else, and a few rates drawn for each would make luck decide. The
other options come from a sequence that learners with options of the same names share. A setting is
scored by the average score over the first stages of the stream, on held-out training samples, with
seeds that no result uses.
"""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from f3eo.bench.continual.learners import Peer
from f3eo.bench.continual.numbers import NUMBERS
from f3eo.bench.plan.points import points
from f3eo.bench.run.row import Row

SEED = 1000
"""Seed of the trials; results use the seeds 0, 1, …"""


def draw(stream: str, peer: Peer, trials: int) -> list[dict[str, Any]]:
    """The settings of a learner on a stream, as changes to its defaults.

    More trials extend the list; the first settings stay the same.

    Args:
        stream: its name; with the names of the options it seeds the sequence.
        peer: its defaults are the first setting.
        trials: number of settings.
    """
    first = {name: peer.defaults[name] for name in peer.space}
    rate = {"lr": peer.space["lr"]}
    others = {name: range_ for name, range_ in peer.space.items() if name not in rate}
    both = [points(space, " ".join((stream, *sorted(space))), trials) for space in (rate, others)]
    return [first, *[a | b for a, b in zip(*both, strict=True)][1:]][:trials]


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
