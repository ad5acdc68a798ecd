"""Methods of the benchmark that train on one stage after another as if it were one task."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from f3eo.bench.continual.learners.learner import Peer, Plain, Space
from f3eo.bench.continual.learners.spaces import (
    ADAM_LIKE,
    MOMENTUM,
    RADIUS,
    SGD,
    SGD_RATE,
    STRUCTURE,
)
from f3eo.bench.methods import METHODS


def _peer(name: str, own: Mapping[str, Any], space: Space) -> Peer:
    method = METHODS[name]

    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Plain:
        return Plain(method.build(model, options, seed))

    return Peer(
        name=name,
        label=method.label,
        colour=method.colour,
        kind="plain",
        source=method.source,
        defaults={**method.defaults, **own},
        space=space,
        build=build,
        note=method.note,
        idle=method.idle,
    )


ADAM_SIZE = {"lr": 1e-3}

PEERS = (
    _peer("sgd", SGD, SGD_RATE | MOMENTUM),
    _peer("adamw", ADAM_SIZE, ADAM_LIKE),
    _peer("muon", ADAM_SIZE, ADAM_LIKE),
    _peer("sam", SGD, SGD_RATE | RADIUS),
    _peer("f3eo", SGD, SGD_RATE | STRUCTURE),
)
