"""What a part of one's own is built from: interfaces, terms of layer rules, registries."""

from f3eo.closure.likelihood import Likelihood
from f3eo.curvature import Engine
from f3eo.direction import DecoupledPerTensor, Direct, InnerProducts, Rule, register_metric
from f3eo.fisher import Diagonal, Emphasis, Estimator, Gradients, Metric
from f3eo.fisher.ghost import Dense, Outer, Rows, Term, register_layer
from f3eo.strength import Observation, Strength

__all__ = [
    "DecoupledPerTensor",
    "Dense",
    "Diagonal",
    "Direct",
    "Emphasis",
    "Engine",
    "Estimator",
    "Gradients",
    "InnerProducts",
    "Likelihood",
    "Metric",
    "Observation",
    "Outer",
    "Rows",
    "Rule",
    "Strength",
    "Term",
    "register_layer",
    "register_metric",
]
