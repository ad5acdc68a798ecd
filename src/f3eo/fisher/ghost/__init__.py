"""Exact per-sample gradient norms at the cost of a batch: ghost norms, differentiable."""

from f3eo.fisher.ghost.ghost import Ghost
from f3eo.fisher.ghost.gradients.terms import Dense, Outer, Rows, Term
from f3eo.fisher.ghost.registry import register_layer

__all__ = ["Dense", "Ghost", "Outer", "Rows", "Term", "register_layer"]
