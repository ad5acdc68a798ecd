"""Instruments: what the Fisher information of a model says about it, as plain numbers.

Each is a function of a model, a closure as F3EO takes it, and data, an iterable of batches. They
measure the model in the mode that it is in, and leave it as it was.
"""

from f3eo.instruments.alignment import Alignment, alignment
from f3eo.instruments.diagonal import diagonal
from f3eo.instruments.means import Estimate
from f3eo.instruments.memorisation import Memorisation, area, memorisation
from f3eo.instruments.noise_scale import NoiseScale, noise_scale
from f3eo.instruments.trace import Trace, trace

__all__ = [
    "Alignment",
    "Estimate",
    "Memorisation",
    "NoiseScale",
    "Trace",
    "alignment",
    "area",
    "diagonal",
    "memorisation",
    "noise_scale",
    "trace",
]
