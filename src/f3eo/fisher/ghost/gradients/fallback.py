"""Exact per-sample gradients of any operation, by torch.func, for operations without a rule."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from torch.func import vjp, vmap

from f3eo.arguments import Arguments, Slot, flat, mapped_arguments
from f3eo.fisher.ghost.gradients.norms import Contribution
from f3eo.fisher.ghost.recording.use import Use


@dataclass(frozen=True)
class Sample:
    """Place of a tensor that carries samples in an operation's arguments, split as (B, …)."""

    tensor: Tensor


def fallback(use: Use, arguments: Arguments, deltas: Sequence[Tensor]) -> Contribution:
    """G_i = (∂f(x_i, w)/∂w)ᵀ δ_i, each sample as a batch of one, for every parameter of a use.

    Args:
        use: the recorded operation f.
        arguments: its args and kwargs, with `Sample` in place of what carries samples.
        deltas: gradients of Σℓ in its outputs, split as (B, …).

    Returns:
        What the use contributes, computed when its rows are asked for.
    """
    order = {id(p): k for k, p in enumerate(use.parameters)}
    args, kwargs = mapped_arguments(
        lambda t: Slot(order[id(t)]) if id(t) in order else t, arguments
    )
    samples: list[Tensor] = []
    mapped_arguments(lambda v: samples.append(v.tensor), (args, kwargs), Sample)
    place = {id(t): k for k, t in enumerate(samples)}

    def single(xs: list[Tensor], ds: list[Tensor]) -> tuple[Tensor, ...]:
        def forward(*weights: Tensor) -> list[Tensor]:
            filled = mapped_arguments(lambda v: xs[place[id(v.tensor)]], (args, kwargs), Sample)
            filled = mapped_arguments(lambda v: weights[v.k], filled, Slot)
            result = list(flat((use.operation(*filled[0], **filled[1]),)))
            return [result[i] for i in use.outputs]

        return vjp(forward, *use.parameters)[1](ds)

    def rows(part: slice, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        chosen = [t[part] for t in tensors]
        with without_loop_warnings():
            batched = vmap(single, randomness="same")
            return batched(chosen[: len(samples)], chosen[len(samples) :])

    return Contribution(use.parameters, rows, [*samples, *deltas])


@contextmanager
def without_loop_warnings() -> Iterator[None]:
    """Operations that vmap can only loop over are exact all the same, and their cost is logged."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
