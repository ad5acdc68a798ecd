"""Instruments: what the Fisher information of a model says about it, as plain numbers."""

from f3eo.instruments.decomposition import Spectrum
from f3eo.instruments.density import Density
from f3eo.instruments.eigenvalues import effective_dimension, log_det, spectrum
from f3eo.instruments.gram_matrix import gram
from f3eo.instruments.means import Estimate
from f3eo.instruments.operator import Operator

__all__ = [
    "Density",
    "Estimate",
    "Operator",
    "Spectrum",
    "effective_dimension",
    "gram",
    "log_det",
    "spectrum",
]
