"""Composite operations written out in operations that can be differentiated twice.

Fused kernels (recurrent layers, bags of embeddings, packed attention) have no second derivative, or
none for every backend; their parts have. Parameters in them also become ordinary linear maps.
"""

from f3eo.decompositions.attention import multi_head_attention
from f3eo.decompositions.embedding_bag import embedding_bag
from f3eo.decompositions.mode import Decomposed
from f3eo.decompositions.recurrent import gru, lstm, rnn_relu, rnn_tanh

__all__ = [
    "Decomposed",
    "embedding_bag",
    "gru",
    "lstm",
    "multi_head_attention",
    "rnn_relu",
    "rnn_tanh",
]
