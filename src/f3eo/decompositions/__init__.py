"""Composite operations written out in operations that can be differentiated twice, and quickly.

Fused kernels (recurrent layers, bags of embeddings, packed attention) have no second derivative, or
none for every backend; their parts have. Parameters in them also become ordinary linear maps.
Others (activations, normalisations) have one that is many times slower than it need be.
"""

from f3eo.decompositions.activation import gelu, silu
from f3eo.decompositions.attention import multi_head_attention
from f3eo.decompositions.convolution import convolution, transposed_convolution
from f3eo.decompositions.embedding_bag import embedding_bag
from f3eo.decompositions.mode import Decomposed
from f3eo.decompositions.normalisation import group_norm, layer_norm, rms_norm, scaled_and_shifted
from f3eo.decompositions.recurrent import gru, lstm, rnn_relu, rnn_tanh
from f3eo.decompositions.weight_norm import weight_norm

__all__ = [
    "Decomposed",
    "convolution",
    "embedding_bag",
    "gelu",
    "group_norm",
    "gru",
    "layer_norm",
    "lstm",
    "multi_head_attention",
    "rms_norm",
    "rnn_relu",
    "rnn_tanh",
    "scaled_and_shifted",
    "silu",
    "transposed_convolution",
    "weight_norm",
]
