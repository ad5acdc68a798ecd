"""A forward pass of the user's code as it is written, while its operations are looked at.

A compiled part would hide them and has no second derivative (pytorch#91469), and what a checkpoint
computes again for the backward pass must be made of the same operations as the first time.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import checkpoint

from f3eo.decompositions import Decomposed

_GENERATOR = "_checkpoint_without_reentrant_generator"


@contextmanager
def as_written(*, twice: bool) -> Iterator[None]:
    """Run what `torch.compile` made as the Python it was, and recompute in the mode of the pass.

    Args:
        twice: see `Decomposed`.
    """
    compiles = "torch._dynamo" in sys.modules  # not imported for this: it takes a second
    eager = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    with eager, _recomputed_alike(twice):
        yield


def recomputes() -> bool:
    """Whether activations are computed again, out of any mode's sight, for the backward pass."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # pyright: ignore
    return hooks is not None and hooks[0].__module__ == checkpoint.__name__


@contextmanager
def _recomputed_alike(twice: bool) -> Iterator[None]:
    """Checkpoints that are not reentrant compute again under `Decomposed`."""
    original: Callable[..., Any] | None = getattr(checkpoint, _GENERATOR, None)
    if original is None:  # a later torch: it says by itself that a recomputation differs
        yield
        return

    @functools.wraps(original)
    def generator(fn: Any, preserve: Any, context_fn: Any, *args: Any, **kwargs: Any) -> Any:
        def contexts() -> Any:
            forward, recompute = context_fn()
            return forward, _Both(recompute, twice)

        return original(fn, preserve, contexts, *args, **kwargs)

    setattr(checkpoint, _GENERATOR, generator)
    try:
        yield
    finally:
        setattr(checkpoint, _GENERATOR, original)


class _Both:
    """A context and `Decomposed`, as often as they are entered.

    Args:
        other: the context, which may be entered again.
        twice: see `Decomposed`.
    """

    def __init__(self, other: Any, twice: bool) -> None:
        self._other = other
        self._twice = twice
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._other)
        stack.enter_context(Decomposed(twice=self._twice))
        self._entered.append(stack)

    def __exit__(self, *exc: Any) -> bool | None:
        return self._entered.pop().__exit__(*exc)
