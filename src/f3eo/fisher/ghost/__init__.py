"""Exact per-sample gradient norms at the cost of a batch: ghost norms, differentiable."""

from f3eo.fisher.ghost.ghost import Ghost
from f3eo.fisher.ghost.registry import register
from f3eo.fisher.ghost.terms import Dense, Outer, Rows, Term

__all__ = ["Dense", "Ghost", "Outer", "Rows", "Term", "register"]
