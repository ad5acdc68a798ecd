"""Strengths that regulate complexity: λ holds the Fisher trace at a target, or is solved for."""

from f3eo.control.free_energy import FreeEnergy
from f3eo.control.pi import PI
from f3eo.control.target import Complexity, Share
from f3eo.control.trace_target import TraceTarget

__all__ = ["PI", "Complexity", "FreeEnergy", "Share", "TraceTarget"]
