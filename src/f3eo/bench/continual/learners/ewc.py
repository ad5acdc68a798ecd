"""Elastic weight consolidation, with the exact diagonal of the Fisher matrix and with another one.

Kirkpatrick et al. 2017 (1612.00796), eq. 3, with one penalty a task:
½ λ Σ_k Σ_p F_kp (θ_p − θ*_kp)². Online EWC (Schwarz et al. 2018, 1805.06370, section 2.2) keeps one
decaying sum F̃ ← γ F̃ + F_k at the last θ*. F is measured with the labels of the data, as is usual
in code, on the first samples of a stage. EWC also stands within the recipe of Stable SGD, as the
importance of F3EO does.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from optuna.distributions import FloatDistribution
from torch import nn
from torch.optim import SGD as SGDOptimizer

from f3eo.bench.continual.learners.batch_squared import BatchSquared
from f3eo.bench.continual.learners.learner import Peer, Space
from f3eo.bench.continual.learners.regularised import Regularised
from f3eo.bench.continual.learners.spaces import PENALTY, PENALTY_OF_BATCHES, SGD, SGD_RATE
from f3eo.bench.continual.learners.stable_sgd import GAMMA, UNMASKED, stable
from f3eo.bench.methods.method import Source
from f3eo.continual import Elastic, Exact, Importance

SAMPLES = {"samples": 1000}
"""Samples of a stage for F; its sampling error is then far below the differences between stages."""


def _peer(
    name: str,
    label: str,
    colour: str,
    importance: Callable[[], Importance],
    defaults: Mapping[str, Any],
    space: Space,
    paper: str = "arXiv 1612.00796",
    note: str = "",
    recipe: Mapping[str, Any] = MappingProxyType({}),
) -> Peer:
    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Regularised:
        elastic = Elastic(importance(), options["strength"], decay=options.get("decay"))
        optimizer = SGDOptimizer(model.parameters(), **{n: options[n] for n in SGD})
        return Regularised(model, optimizer, elastic, options["samples"])

    return Peer(
        name=name,
        label=label,
        colour=colour,
        kind="regularised",
        source=Source("f3eo", f"{Regularised.__module__}.Regularised", paper),
        defaults={**SGD, **SAMPLES, **defaults, **recipe},
        space={**SGD_RATE, **space},
        build=stable(build) if recipe else build,
        note=note,
    )


PEERS = (
    _peer(
        "ewc",
        "EWC",
        "#00838f",
        Exact,
        {"strength": 10.0},
        PENALTY,
        note="the exact diagonal of single samples, by f3eo.instruments.diagonal",
    ),
    _peer(
        "ewc_batch",
        "EWC, batch-squared",
        "#80cbc4",
        BatchSquared,
        {"strength": 100.0},
        PENALTY_OF_BATCHES,
        note="squares of batch gradients, about 1/B of the exact diagonal: strength is searched "
        "in a range that is ten times as high",
    ),
    _peer(
        "online_ewc",
        "online EWC",
        "#4dd0e1",
        Exact,
        {"strength": 10.0, "decay": 0.95},
        {**PENALTY, "decay": FloatDistribution(0.5, 1.0)},
        paper="arXiv 1805.06370",
        note="one decaying importance, anchored at the last parameters",
    ),
    _peer(
        "stable_ewc",
        "EWC, stable recipe",
        "#006064",
        Exact,
        {"strength": 10.0},
        {**PENALTY, **GAMMA},
        note="ewc at the rate lr gamma^(k-1) in stage k",
        recipe=UNMASKED,
    ),
)
