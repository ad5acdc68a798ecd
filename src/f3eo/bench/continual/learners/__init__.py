"""Learners of a stream by name; one learner or one family a file.

C-Flat (2404.00986) is missing: no installed package has it, pytorch_optimizer neither, and the
benchmark copies no code.
"""

from collections.abc import Mapping

from f3eo.bench.continual.learners import (
    agem,
    ewc,
    f3eo_past,
    plain,
    replay,
    shaped,
    stable_sgd,
    synaptic,
)
from f3eo.bench.continual.learners.learner import Batches, Learner, Peer

PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        # neither earlier samples nor earlier parameters
        *plain.PEERS,
        *stable_sgd.PEERS,
        *shaped.PEERS,
        # earlier parameters
        *ewc.PEERS,
        synaptic.PEER,
        # earlier samples
        *replay.PEERS,
        agem.PEER,
        # F3EO with a past
        *f3eo_past.PEERS,
    )
}

__all__ = ["PEERS", "Batches", "Learner", "Peer"]
