"""F3EO trains a network on its loss and on the trace of its Fisher information at once.

What is typed to train stands here; what a part of one's own is built from, in `f3eo.extend`.
"""

from f3eo.closure.likelihood import Categorical, Gaussian
from f3eo.closure.loss_scale import LossScale
from f3eo.closure.weighted import Weighted
from f3eo.curvature import DoubleBackward, FiniteDifference
from f3eo.direction import Coupled, Decoupled
from f3eo.fisher import (
    ByFit,
    ByMisfit,
    ByRow,
    Compiled,
    Elementwise,
    Euclidean,
    Factored,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
    Uniform,
    fisher_trace,
)
from f3eo.optimizer import F3EO
from f3eo.strength import Cap, Fitted, Fixed, Ratio, Sensitivity, Warmup

__version__ = "0.3.0"

__all__ = [
    "F3EO",
    "ByFit",
    "ByMisfit",
    "ByRow",
    "Cap",
    "Categorical",
    "Compiled",
    "Coupled",
    "Decoupled",
    "DoubleBackward",
    "Elementwise",
    "Euclidean",
    "Factored",
    "FiniteDifference",
    "Fitted",
    "Fixed",
    "Gaussian",
    "LossScale",
    "MiniBatch",
    "ModelSampled",
    "PerSample",
    "Ratio",
    "Sensitivity",
    "Sign",
    "Uniform",
    "Warmup",
    "Weighted",
    "fisher_trace",
]
