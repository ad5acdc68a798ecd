"""Composite operations written out in operations that can be differentiated twice, and quickly.

Fused kernels (recurrent layers, bags of embeddings, packed attention) have no second derivative, or
none for every backend; their parts have. Parameters in them also become ordinary linear maps.
Others (activations, normalisations) have one that is many times slower than it need be, or wrong.
"""

from f3eo.decompositions import (
    activation,
    attention,
    convolution,
    embedding_bag,
    normalisation,
    recurrent,
    weight_norm,
)
from f3eo.decompositions.mode import Decomposed

__all__ = [
    "Decomposed",
    "activation",
    "attention",
    "convolution",
    "embedding_bag",
    "normalisation",
    "recurrent",
    "weight_norm",
]
