"""F3EO trains a network on its loss and on the trace of its Fisher information at once."""

from f3eo.fisher import Batch, Compiled, Estimator, ModelSampled, PerSample, Sign, fisher_trace
from f3eo.fisher.ghost import Dense, Outer, Rows, Term, register
from f3eo.likelihood import Categorical, Gaussian, Likelihood
from f3eo.optimizer import F3EO
from f3eo.products import DoubleBackward, Engine, FiniteDifference
from f3eo.updates import (
    Cap,
    Coupled,
    Decoupled,
    DecoupledPerTensor,
    Direct,
    Fitted,
    Fixed,
    Ratio,
    Rule,
    Warmup,
    Weight,
    register_metric,
)

__all__ = [
    "F3EO",
    "Batch",
    "Cap",
    "Categorical",
    "Compiled",
    "Coupled",
    "Decoupled",
    "DecoupledPerTensor",
    "Dense",
    "Direct",
    "DoubleBackward",
    "Engine",
    "Estimator",
    "FiniteDifference",
    "Fitted",
    "Fixed",
    "Gaussian",
    "Likelihood",
    "ModelSampled",
    "Outer",
    "PerSample",
    "Ratio",
    "Rows",
    "Rule",
    "Sign",
    "Term",
    "Warmup",
    "Weight",
    "fisher_trace",
    "register",
    "register_metric",
]
