"""Update rules, the weight of the structure term, and the metric of the base optimizer."""

from f3eo.updates.coupled import Coupled
from f3eo.updates.decoupled import Decoupled, DecoupledPerTensor
from f3eo.updates.direct import Direct
from f3eo.updates.metric import is_diagonal, is_known, metric, register_metric
from f3eo.updates.rule import Products, Rule, multiplier
from f3eo.updates.update import Update, products
from f3eo.updates.weight import Cap, Fitted, Fixed, Ratio, Warmup, Weight

__all__ = [
    "Cap",
    "Coupled",
    "Decoupled",
    "DecoupledPerTensor",
    "Direct",
    "Fitted",
    "Fixed",
    "Products",
    "Ratio",
    "Rule",
    "Update",
    "Warmup",
    "Weight",
    "is_diagonal",
    "is_known",
    "metric",
    "multiplier",
    "products",
    "register_metric",
]
