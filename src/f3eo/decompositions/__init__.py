"""Composite operations replaced by operations with fast, exact second derivatives.

Fused kernels (recurrent layers, bags of embeddings, packed attention) have no second derivative, or
none on some backends; the operations that they consist of have one, and use parameters in ordinary
linear maps. Other kernels (activations, normalisations) have a second derivative that is slow or
wrong.
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
