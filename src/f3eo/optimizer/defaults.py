"""The parts of F3EO that are not named: one setting for all tasks and bases (docs/tried.md)."""

from f3eo.fisher import ByRow, Estimator, PerSample
from f3eo.strength import Fitted, Sensitivity, Strength


def default_estimator() -> Estimator:
    """The trace in the units of the weights, of the outputs' Jacobian alone."""
    return PerSample(metric=ByRow(), hold_residuals=True)


def default_strength(estimator: Estimator) -> Strength:
    """λ without units, where the trace has none; else a distance in those of the parameters."""
    return Sensitivity() if estimator.relative else Fitted(0.04)
