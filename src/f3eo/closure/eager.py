"""Runs a closure eagerly: no compiled code, no fused attention, checkpoints that can be recorded.

Compiled code hides its operations from torch function modes and has no second derivative
(pytorch#91469). A checkpoint recomputes activations during the backward pass; the recomputation
must consist of the same operations as the forward pass.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint

from f3eo.decompositions import Decomposed

_GENERATOR = "_checkpoint_without_reentrant_generator"
_REENTRANT = "CheckpointFunction"


def eager_execution(*, differentiable: bool) -> ExitStack:
    """Context in which compiled functions run as Python and checkpoints recompute in `Decomposed`.

    It takes effect at the call, and ends when the returned context is left.

    Args:
        differentiable: whether the gradients of this pass are differentiated again. Fused attention
            has no second derivative, so it is then replaced by the mathematical form.

    Raises:
        RuntimeError: in the context, at a reentrant checkpoint.
    """
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # not imported here, that takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if differentiable:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        original = getattr(checkpoint, _GENERATOR, None)
        if original is not None:  # a torch without it compares recomputed tensors by itself
            generator = _recomputing_decomposed(original, differentiable)
            _replace_until_exit(stack, _GENERATOR, generator)
        if hasattr(checkpoint, _REENTRANT):
            _replace_until_exit(stack, _REENTRANT, _RefusedReentrant)
        return stack.pop_all()


def inside_checkpoint() -> bool:
    """Whether the running code is checkpointed, so that its activations are recomputed later."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # pyright: ignore
    return hooks is not None and hooks[0].__module__ == checkpoint.__name__


def _replace_until_exit(stack: ExitStack, name: str, value: Any) -> None:
    """Replace an attribute of torch.utils.checkpoint until the stack is closed."""
    stack.callback(setattr, checkpoint, name, getattr(checkpoint, name))
    setattr(checkpoint, name, value)


def _recomputing_decomposed(
    original: Callable[..., Any], differentiable: bool
) -> Callable[..., Any]:
    """torch's generator behind a checkpoint, with the recomputation in `Decomposed`."""

    @functools.wraps(original)
    def generator(fn: Any, preserve: Any, context_fn: Any, *args: Any, **kwargs: Any) -> Any:
        def contexts() -> Any:
            forward, recompute = context_fn()
            return forward, _Recomputation(recompute, differentiable)

        return original(fn, preserve, contexts, *args, **kwargs)

    return generator


class _RefusedReentrant:
    """Replaces torch's `CheckpointFunction`, which reentrant checkpoints call.

    A reentrant checkpoint hides its operations from every mode, and its backward pass works under
    `backward()` alone.
    """

    @staticmethod
    def apply(*args: Any) -> Any:
        raise RuntimeError(
            "activation checkpointing with use_reentrant=True hides its parameters and has no "
            "second derivative: pass use_reentrant=False to torch.utils.checkpoint.checkpoint (in "
            "transformers gradient_checkpointing_enable(gradient_checkpointing_kwargs="
            '{"use_reentrant": False}))'
        )


class _Recomputation:
    """Context of a recomputation; it can be entered several times, also while entered.

    Args:
        inner: the checkpoint's own context for recomputations.
        differentiable: see `eager_execution`.
    """

    def __init__(self, inner: Any, differentiable: bool) -> None:
        self._inner = inner
        self._differentiable = differentiable
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._inner)
        if self._differentiable:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(Decomposed(differentiable=self._differentiable))
        self._entered.append(stack)

    def __exit__(self, *exc: Any) -> bool | None:
        return self._entered.pop().__exit__(*exc)
