"""Dropout after the hidden activations of a model that has none of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

KEEPS_ITS_OUTPUT = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax)
"""Of torch.nn.modules.activation, what is no elementwise activation."""


class Dropout:
    """A forward hook: a module's output times a mask, z ∘ m/(1 − p), m ~ Bernoulli(1 − p).

    Off where the module is in evaluation mode. It has no state, so copies of a model have their
    own. The mask comes from torch's global generator, as that of `nn.Dropout`.

    Args:
        share: p, the share of entries that are set to zero, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """The output with this mask; itself in evaluation mode."""
        return F.dropout(output, self.share, module.training)


def insert_dropout(model: nn.Module, share: float) -> None:
    """Drop a share of the outputs of every activation module, such as `nn.ReLU`, while training.

    Args:
        model: its activations are modules of torch.nn; stays as it is where the share is 0.
        share: in [0, 1).

    Raises:
        ValueError: a share out of range, or a model without such modules.
    """
    if not 0 <= share < 1:
        raise ValueError(f"dropout is a share in [0, 1), received {share}")
    found = [m for m in model.modules() if _is_activation(m)]
    if share and not found:
        raise ValueError(
            f"{type(model).__name__} has no activation module for dropout={share} to follow; "
            f"use nn.ReLU() and its kin in place of functions, or dropout=0"
        )
    for module in found if share else ():
        module.register_forward_hook(Dropout(share))


def _is_activation(module: nn.Module) -> bool:
    own = type(module).__module__ == "torch.nn.modules.activation"
    return own and not isinstance(module, KEEPS_ITS_OUTPUT)


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Let what draws from torch's global generator on the processor draw from this one.

    The global state is as before afterwards; the generator has moved on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())
