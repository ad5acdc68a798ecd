"""Instruments: what the Fisher information of a model says about it, as plain numbers.

Each is a function of a model, a closure as F3EO takes it, and data, an iterable of batches. They
measure the model in the mode that it is in, and leave it as it was.
"""

from f3eo.instruments.alignment import Alignment, alignment
from f3eo.instruments.decomposition import Spectrum
from f3eo.instruments.density import Density
from f3eo.instruments.diagonal import diagonal
from f3eo.instruments.eigenvalues import effective_dimension, log_det, spectrum
from f3eo.instruments.gram_matrix import gram
from f3eo.instruments.means import Estimate
from f3eo.instruments.memorisation import Memorisation, area, memorisation
from f3eo.instruments.noise_scale import NoiseScale, noise_scale
from f3eo.instruments.operator import Operator
from f3eo.instruments.plane import Landscape, Plane, landscape, structure_plane
from f3eo.instruments.trace import Trace, trace

__all__ = [
    "Alignment",
    "Density",
    "Estimate",
    "Landscape",
    "Memorisation",
    "NoiseScale",
    "Operator",
    "Plane",
    "Spectrum",
    "Trace",
    "alignment",
    "area",
    "diagonal",
    "effective_dimension",
    "gram",
    "landscape",
    "log_det",
    "memorisation",
    "noise_scale",
    "spectrum",
    "structure_plane",
    "trace",
]
