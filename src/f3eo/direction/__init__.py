"""Update rules, and the metric of the base optimizer in which they work."""

from f3eo.direction.apart import apart
from f3eo.direction.coupled import Coupled
from f3eo.direction.decoupled import Decoupled, DecoupledPerTensor
from f3eo.direction.direct import Direct
from f3eo.direction.metric import is_diagonal, is_known, metric, register_metric
from f3eo.direction.rule import InnerProducts, Rule
from f3eo.direction.update import Update, combine, inner_products, together

__all__ = [
    "Coupled",
    "Decoupled",
    "DecoupledPerTensor",
    "Direct",
    "InnerProducts",
    "Rule",
    "Update",
    "apart",
    "combine",
    "inner_products",
    "is_diagonal",
    "is_known",
    "metric",
    "register_metric",
    "together",
]
