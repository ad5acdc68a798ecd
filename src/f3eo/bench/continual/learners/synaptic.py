"""Synaptic intelligence: importance is what a parameter's way has lowered the loss by.

Zenke et al. 2017 (1703.04200), eq. 4 and 5, over SGD: ω_p += −∂_p L · Δθ_p along the steps of a
stage, and Ω_p += ω_p/(Δ_p² + ξ) at its end, with Δ_p the move in the stage. The anchor is where the
last stage ended. The paper's penalty is c Σ Ω (θ − θ*)², without the ½: strength = 2c. The paper
steps by Adam.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD as SGDOptimizer

from f3eo.bench.continual.learners.learner import Peer
from f3eo.bench.continual.learners.regularised import Regularised
from f3eo.bench.continual.learners.spaces import SGD, SGD_RATE, log
from f3eo.bench.methods.method import Source
from f3eo.continual import Elastic, PathIntegral


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Regularised:
    """SI over SGD; deterministic, `seed` is unused."""
    elastic = Elastic(PathIntegral(options["damping"]), options["strength"], decay=1.0)
    optimizer = SGDOptimizer(model.parameters(), **{name: options[name] for name in SGD})
    return Regularised(model, optimizer, elastic)


PEER = Peer(
    name="si",
    label="SI",
    colour="#5e35b1",
    kind="regularised",
    source=Source("f3eo", f"{Regularised.__module__}.Regularised", "arXiv 1703.04200"),
    defaults={**SGD, "strength": 2.0, "damping": 0.1},
    space={**SGD_RATE, "strength": log(0.02, 200.0)},
    build=build,
    note="strength is 2c of the paper, which takes c = 0.1 over Adam; damping is its xi",
)
