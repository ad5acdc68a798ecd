"""F3EO trains a network on its loss and on the trace of its Fisher information at once.

What is typed to train stands here; what a part of one's own is built from, in `f3eo.extend`.
"""

from f3eo.fisher import Batch, Compiled, ModelSampled, PerSample, Sign, fisher_trace
from f3eo.likelihood import Categorical, Gaussian
from f3eo.optimizer import F3EO
from f3eo.products import DoubleBackward, FiniteDifference
from f3eo.updates import Cap, Coupled, Decoupled, Fitted, Fixed, Ratio, Warmup
from f3eo.weighted import Weighted

__version__ = "0.1.0"

__all__ = [
    "F3EO",
    "Batch",
    "Cap",
    "Categorical",
    "Compiled",
    "Coupled",
    "Decoupled",
    "DoubleBackward",
    "FiniteDifference",
    "Fitted",
    "Fixed",
    "Gaussian",
    "ModelSampled",
    "PerSample",
    "Ratio",
    "Sign",
    "Warmup",
    "Weighted",
    "fisher_trace",
]
