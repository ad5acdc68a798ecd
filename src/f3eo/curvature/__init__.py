"""Engines for Hessian-vector products."""

from f3eo.curvature.double_backward import DoubleBackward
from f3eo.curvature.engine import Engine, Objective
from f3eo.curvature.finite_difference import FiniteDifference

__all__ = ["DoubleBackward", "Engine", "FiniteDifference", "Objective"]
