"""Rules for the operations of torch, one kind a file; importing them registers them."""

from f3eo.fisher.ghost.rules import (
    channel_norm,
    convolution,
    elementwise,
    embedding,
    layer_norm,
    linear,
    rms_norm,
)

__all__ = [
    "channel_norm",
    "convolution",
    "elementwise",
    "embedding",
    "layer_norm",
    "linear",
    "rms_norm",
]
