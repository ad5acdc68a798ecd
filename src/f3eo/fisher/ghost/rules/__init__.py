"""Rules for the operations of torch, one kind a file; importing them registers them."""

from f3eo.fisher.ghost.rules import (
    convolution,
    elementwise,
    embedding,
    group_norm,
    layer_norm,
    linear,
)

__all__ = ["convolution", "elementwise", "embedding", "group_norm", "layer_norm", "linear"]
