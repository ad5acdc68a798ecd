"""Layer rules for the operations of torch, one kind a file; an import registers them."""

from f3eo.fisher.ghost.rules import convolution, elementwise, embedding, linear, normalisation

__all__ = ["convolution", "elementwise", "embedding", "linear", "normalisation"]
