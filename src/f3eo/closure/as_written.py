"""A forward pass of the user's code as it is written, while its operations are looked at.

A compiled part would hide them and has no second derivative (pytorch#91469), and what a checkpoint
computes again for the backward pass must be made of the same operations as the first time.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint

from f3eo.decompositions import Decomposed

_GENERATOR = "_checkpoint_without_reentrant_generator"
_REENTRANT = "CheckpointFunction"


@contextmanager
def as_written(*, differentiable: bool) -> Iterator[None]:
    """Run what `torch.compile` made as the Python it was, and recompute in the mode of the pass.

    Args:
        differentiable: see `Decomposed`; fused attention has no second derivative and is left
            out then.

    Raises:
        RuntimeError: a checkpoint is reentrant.
    """
    compiles = "torch._dynamo" in sys.modules  # not imported for this: it takes a second
    eager = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    with (
        eager,
        _unfused(differentiable),
        _recomputed_alike(differentiable),
        _swapped(_REENTRANT, _Reentrant),
    ):
        yield


def recomputes() -> bool:
    """Whether activations are computed again, out of any mode's sight, for the backward pass."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # pyright: ignore
    return hooks is not None and hooks[0].__module__ == checkpoint.__name__


def _unfused(differentiable: bool) -> AbstractContextManager[Any]:
    return sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()


@contextmanager
def _recomputed_alike(differentiable: bool) -> Iterator[None]:
    """Checkpoints that are not reentrant compute again under `Decomposed`."""
    original: Callable[..., Any] | None = getattr(checkpoint, _GENERATOR, None)
    if original is None:  # a later torch: it says by itself that a recomputation differs
        yield
        return

    @functools.wraps(original)
    def generator(fn: Any, preserve: Any, context_fn: Any, *args: Any, **kwargs: Any) -> Any:
        def contexts() -> Any:
            forward, recompute = context_fn()
            return forward, _Both(recompute, differentiable)

        return original(fn, preserve, contexts, *args, **kwargs)

    with _swapped(_GENERATOR, generator):
        yield


@contextmanager
def _swapped(name: str, value: Any) -> Iterator[None]:
    """Another value under a name of torch.utils.checkpoint, if it is known there."""
    original = getattr(checkpoint, name, None)
    if original is None:
        yield
        return
    setattr(checkpoint, name, value)
    try:
        yield
    finally:
        setattr(checkpoint, name, original)


class _Reentrant:
    """In place of the function behind reentrant checkpoints.

    It hides what it computes from every mode, and its backward works under `backward()` alone.
    """

    @staticmethod
    def apply(*args: Any) -> Any:
        raise RuntimeError(
            "activation checkpointing with use_reentrant=True hides its parameters and has no "
            "second derivative: pass use_reentrant=False to torch.utils.checkpoint.checkpoint (in "
            "transformers gradient_checkpointing_enable(gradient_checkpointing_kwargs="
            '{"use_reentrant": False}))'
        )


class _Both:
    """A context and that of the first pass, as often as they are entered.

    Args:
        other: the context, which may be entered again.
        differentiable: see `Decomposed`.
    """

    def __init__(self, other: Any, differentiable: bool) -> None:
        self._other = other
        self._differentiable = differentiable
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._other)
        stack.enter_context(_unfused(self._differentiable))
        stack.enter_context(Decomposed(differentiable=self._differentiable))
        self._entered.append(stack)

    def __exit__(self, *exc: Any) -> bool | None:
        return self._entered.pop().__exit__(*exc)
