"""Update rules and the metric of the base optimizer."""

from f3eo.direction.coupled import Coupled
from f3eo.direction.decoupled import Decoupled, DecoupledPerTensor
from f3eo.direction.direct import Direct
from f3eo.direction.metric import is_diagonal, is_known, metric, register_metric
from f3eo.direction.rule import InnerProducts, Rule, multiplier
from f3eo.direction.update import Update, products

__all__ = [
    "Coupled",
    "Decoupled",
    "DecoupledPerTensor",
    "Direct",
    "InnerProducts",
    "Rule",
    "Update",
    "is_diagonal",
    "is_known",
    "metric",
    "multiplier",
    "products",
    "register_metric",
]
