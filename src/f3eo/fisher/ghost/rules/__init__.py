"""Rules for the operations of torch, one kind a file; importing them registers them."""

from f3eo.fisher.ghost.rules import convolution, elementwise, embedding, linear, normalisation

__all__ = ["convolution", "elementwise", "embedding", "linear", "normalisation"]
