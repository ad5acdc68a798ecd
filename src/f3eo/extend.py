"""What a part of one's own is built from: interfaces, terms of layer rules, registries."""

from f3eo.fisher import Estimator, Gradients
from f3eo.fisher.ghost import Dense, Outer, Rows, Term, register
from f3eo.likelihood import Likelihood
from f3eo.products import Engine
from f3eo.updates import DecoupledPerTensor, Direct, Products, Rule, Weight, register_metric

__all__ = [
    "DecoupledPerTensor",
    "Dense",
    "Direct",
    "Engine",
    "Estimator",
    "Gradients",
    "Likelihood",
    "Outer",
    "Products",
    "Rows",
    "Rule",
    "Term",
    "Weight",
    "register",
    "register_metric",
]
