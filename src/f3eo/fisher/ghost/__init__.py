"""Exact per-sample gradient norms at the cost of a batch: ghost norms, differentiable."""

from f3eo.fisher.ghost.ghost import FirstPass, Ghost
from f3eo.fisher.ghost.gradients.forms import Products, Squares
from f3eo.fisher.ghost.gradients.terms import Dense, Outer, Rows, Term
from f3eo.fisher.ghost.recording.recording import record
from f3eo.fisher.ghost.registry import register_layer

__all__ = [
    "Dense",
    "FirstPass",
    "Ghost",
    "Outer",
    "Products",
    "Rows",
    "Squares",
    "Term",
    "record",
    "register_layer",
]
