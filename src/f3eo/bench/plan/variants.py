"""Variants of F3EO, as data: its parts one by one, and grids of learning rate and weight.

All start from what F3EO was tuned to on the task. A variant over another base takes the learning
rate and weight decay that this base was tuned to by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from f3eo.bench.methods.bases import BASES, over


@dataclass(frozen=True)
class Variant:
    """A method with some options changed.

    Args:
        label: unique; results carry it.
        options: what is changed.
        method: whose tuned options it starts from; default f3eo.
        rates: method whose tuned `lr` and `weight_decay` it takes; default its own.
    """

    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    method: str = "f3eo"
    rates: str = ""

    @property
    def needs(self) -> set[str]:
        """Methods that must be tuned for it."""
        return {self.method, self.rates or self.method}


def _part(name: str, value: Any, **more: Any) -> Variant:
    return Variant(f"{name}={value}", {name: value, **more})


def _over(method: str, base: str) -> Variant:
    return Variant(f"{method} over {base}", over(base), method, rates=base)


TRACE = {"power": 2.0, "strength": "ratio"}
"""For estimators that know no other power: a weight without a scale, as that of Tr F is another."""
ABLATION: Sequence[Variant] = (
    _part("estimator", "per_sample"),
    _part("estimator", "exact"),
    _part("estimator", "sign", **TRACE),
    _part("estimator", "batch", fraction=1.0, **TRACE),
    _part("estimator", "model_sampled", **TRACE),
    _part("power", 2.0, strength="ratio"),
    _part("rule", "coupled"),
    _part("rule", "per_tensor"),
    _part("rule", "direct", strength="ratio", ratio=1.0),
    _part("strength", "cap"),
    _part("strength", "fixed"),
    _part("strength", "ratio"),
    _part("fraction", 1.0),
    _part("every", 1),
    _part("every", 10),
    *(_over(method, base) for method in ("f3eo", "sam") for base in BASES),
)
ABLATION_TASKS = ("mnist1d-mlp", "fashion-cnn", "modular-addition")

RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
WEIGHTS = {
    "decoupled": ({}, (0.01, 0.03, 0.1, 0.3)),
    "coupled": ({"strength": "fixed"}, (0.01, 0.03, 0.1, 0.3)),
    "direct": ({"strength": "fixed", "power": 2.0}, (0.02, 0.2, 2.0, 20.0)),
}
"""By rule: what goes with it, and values of the weight; the direct rule as in the source document,
where 2 is proposed. All over SGD, whose range of learning rates this is."""

SENSITIVITY: Sequence[Variant] = tuple(
    Variant(
        f"sensitivity {rule}",
        {**over("sgd"), "rule": rule, **given, "value": value, "lr": lr},
        rates="sgd",
    )
    for rule, (given, values) in WEIGHTS.items()
    for lr in RATES
    for value in values
)
SENSITIVITY_TASKS = ("mnist1d-mlp",)
SENSITIVITY_SEEDS = 3
"""At most so many seeds on the grids."""
