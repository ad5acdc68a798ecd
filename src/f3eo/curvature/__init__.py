"""Engines for Hessian-vector products."""

from f3eo.curvature.double_backward import DoubleBackward
from f3eo.curvature.engine import Engine, Objective
from f3eo.curvature.finite_difference import FiniteDifference
from f3eo.curvature.guarded import Guarded

__all__ = ["DoubleBackward", "Engine", "FiniteDifference", "Guarded", "Objective"]
