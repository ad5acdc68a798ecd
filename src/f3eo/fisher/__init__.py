"""Estimators of the trace of the Fisher information and of its gradient."""

from f3eo.fisher.compiled import Compiled
from f3eo.fisher.emphasis import ByFit, ByMisfit, Emphasis, Uniform
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.estimator import Estimator, plain_gradient
from f3eo.fisher.metric import ByRow, Diagonal, Elementwise, Euclidean, Factored, Metric
from f3eo.fisher.mini_batch import MiniBatch
from f3eo.fisher.per_sample import PerSample
from f3eo.fisher.reduction import Reduction, SingleProcess
from f3eo.fisher.sampled_labels import ModelSampled
from f3eo.fisher.signs import Sign
from f3eo.fisher.trace import fisher_trace

__all__ = [
    "ByFit",
    "ByMisfit",
    "ByRow",
    "Compiled",
    "Diagonal",
    "Elementwise",
    "Emphasis",
    "Estimator",
    "Euclidean",
    "Factored",
    "Gradients",
    "Metric",
    "MiniBatch",
    "ModelSampled",
    "PerSample",
    "Reduction",
    "Sign",
    "SingleProcess",
    "Uniform",
    "fisher_trace",
    "plain_gradient",
]
