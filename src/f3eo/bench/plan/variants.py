"""Variants of F3EO: its parts changed one at a time, and grids of learning rate and strength.

Every variant starts from the tuned options of F3EO on the task. A variant over another base takes
the tuned learning rate and weight decay of that base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from f3eo.bench.methods.bases import BASES, over


@dataclass(frozen=True)
class Variant:
    """A method with some of its options changed.

    Args:
        label: unique name, stored in its rows.
        options: the changed options; default none.
        method: the method it varies; default "f3eo".
        rates: method whose tuned `lr` and `weight_decay` it takes; default "", its own.
    """

    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    method: str = "f3eo"
    rates: str = ""

    @property
    def needs(self) -> set[str]:
        """The methods whose tuned options it is made from."""
        return {self.method, self.rates or self.method}


def _part(name: str, value: Any, **more: Any) -> Variant:
    return Variant(f"{name}={value}", {name: value, **more})


def _over(method: str, base: str) -> Variant:
    return Variant(f"{method} over {base}", over(base), method, rates=base)


EARLIER = {
    "metric": "euclidean",
    "residuals": "free",
    "strength": "fitted",
    "value": 0.04,
}
"""The default before there were metrics: a distance in parameter space."""
TRACE = {"power": 2.0, "strength": "ratio"}
"""Options of estimators that know Tr F alone (power 2), whose strength has another scale.

A ratio has no scale.
"""
ABLATION: Sequence[Variant] = (
    _part("metric", "elementwise"),
    _part("metric", "factored"),
    Variant("metric=euclidean", EARLIER),
    _part("residuals", "free"),
    _part("estimator", "compiled"),
    _part("estimator", "exact"),
    _part("estimator", "sign", **TRACE),
    _part("estimator", "batch", fraction=1.0, **TRACE),
    _part("estimator", "model_sampled", **TRACE),
    _part("power", 2.0, strength="ratio"),
    _part("rule", "coupled"),
    _part("rule", "per_tensor"),
    _part("rule", "direct", strength="ratio", ratio=1.0),
    _part("strength", "fitted"),
    _part("strength", "fixed"),
    _part("strength", "ratio"),
    _part("fraction", 1.0),
    _part("every", 1),
    _part("every", 10),
    *(_over(method, base) for method in ("f3eo", "sam") for base in BASES),
)
ABLATION_TASKS = ("mnist1d-mlp", "fashion-cnn", "modular-addition")

RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Learning rates of the grids."""
STRENGTHS = {
    "decoupled": ({}, (0.25, 0.5, 1.0, 2.0)),
    "coupled": ({"strength": "fixed"}, (0.25, 0.5, 1.0, 2.0)),
    "direct": (
        {**EARLIER, "strength": "fixed", "power": 2.0},
        (0.02, 0.2, 2.0, 20.0),
    ),
}
"""By rule: its options, and the values of the strength. All grids are over SGD.

The direct rule is that of the source document, in the Euclidean metric, with a strength of 2.
"""

SENSITIVITY: Sequence[Variant] = tuple(
    Variant(
        f"sensitivity {rule}",
        {**over("sgd"), "rule": rule, **options, "value": value, "lr": lr},
        rates="sgd",
    )
    for rule, (options, values) in STRENGTHS.items()
    for lr in RATES
    for value in values
)
SENSITIVITY_TASKS = ("mnist1d-mlp",)
SENSITIVITY_SEEDS = 3
"""The largest number of seeds on the grids."""
