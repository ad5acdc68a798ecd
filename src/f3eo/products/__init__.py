"""Engines for Hessian-vector products."""

from f3eo.products.double_backward import DoubleBackward
from f3eo.products.engine import Engine, Objective
from f3eo.products.finite_difference import FiniteDifference
from f3eo.products.guarded import Guarded

__all__ = ["DoubleBackward", "Engine", "FiniteDifference", "Guarded", "Objective"]
