"""The parts of F3EO that are not named: one setting for all tasks and bases (docs/tried.md)."""

from torch.optim import Optimizer

from f3eo.direction import is_known
from f3eo.fisher import ByRow, Estimator, PerSample
from f3eo.strength import Fitted, Sensitivity, Strength


def default_estimator() -> Estimator:
    """The trace in the units of the weights, of the outputs' Jacobian alone."""
    return PerSample(metric=ByRow(), hold_residuals=True)


def default_strength(estimator: Estimator, base: Optimizer) -> Strength:
    """λ without units, where the trace has none; else a distance in those of the parameters."""
    return Sensitivity(limit=default_limit(base)) if estimator.relative else Fitted(0.04)


def default_limit(base: Optimizer) -> float:
    """The limit of `Sensitivity`: a base of unknown metric, such as Muon, takes a longer d."""
    return 0.3 if is_known(base) else 1.0
