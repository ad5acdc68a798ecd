"""One checked evaluation of the user's closure, and the snapshot around it that can be put back."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from f3eo.closure import batch as batches
from f3eo.closure.as_written import as_written
from f3eo.closure.likelihood import Likelihood
from f3eo.closure.output import Output, Shares
from f3eo.closure.problem import Problem
from f3eo.closure.weighted import Weighted
from f3eo.decompositions import Decomposed


def evaluate(
    problem: Problem,
    *,
    per_sample: bool,
    differentiable: bool,
    attached: bool = True,
    mode: Decomposed | None = None,
) -> Output:
    """Run the closure once and check what it returns.

    Args:
        problem: closure, batch and parameters.
        per_sample: refuse a scalar loss; otherwise it counts as one sample.
        differentiable: run the forward so that it can be differentiated twice: fused attention and
            recurrent kernels cannot (pytorch#116350, pytorch#5261).
        attached: with gradients enabled; without, nothing can be differentiated.
        mode: around the closure alone; it sees composite operations as their parts.

    Returns:
        Losses of shape (B,), and what they count.

    Raises:
        TypeError: neither a tensor nor a likelihood.
        ValueError: a scalar, a wrong number of samples, losses no parameter has a part in, weights
            that are negative or not finite.
        RuntimeError: the closure called `backward`.
    """
    with (
        torch.set_grad_enabled(attached),
        _untouched_grads(problem.parameters),
        ExitStack() as stack,
    ):
        if differentiable or mode is not None:
            stack.enter_context(as_written(differentiable=differentiable))
        with mode or (Decomposed(differentiable=True) if differentiable else nullcontext()):
            result = problem.closure(*problem.batch)
            likelihood = result if isinstance(result, Likelihood) else None
            weights = None
            if likelihood is not None:
                losses, weights = likelihood.losses(), likelihood.weights()
            elif isinstance(result, Weighted):
                losses, weights = result.per_sample()
            else:
                losses = result
        if any(p.grad is not None for p in problem.parameters):
            raise RuntimeError(
                "the closure called backward(): F3EO differentiates by itself; return the "
                "per-sample losses and remove backward() and zero_grad() from the closure; where a "
                "framework calls them, take over its loop (Lightning: automatic_optimization=False)"
            )
    losses = _checked(losses, problem, per_sample, attached)
    if isinstance(result, Weighted) and not problem.repeatable:  # a recording has no values yet
        result.check()
    output = Output(losses, likelihood, Shares(len(losses), weights))
    if problem.on_output is not None and attached and not problem.repeatable:
        problem.on_output(output)
    return output


def _checked(losses: Any, problem: Problem, per_sample: bool, attached: bool) -> Tensor:
    if not isinstance(losses, Tensor):
        hollow = (
            "; behind a wrapper's step() of no closure, accumulate(closure, *batch) comes first"
        )
        raise TypeError(
            f"the closure returns per-sample losses (a tensor), Weighted(losses, weights) or a "
            f"likelihood (Categorical, Gaussian), received {type(losses).__name__}"
            f"{hollow if losses is None else ''}"
        )
    if losses.ndim == 0:
        if per_sample:
            raise ValueError(
                "the closure returned a scalar loss, per-sample losses are needed: use "
                'reduction="none" so that dimension 0 counts the samples (or estimator=MiniBatch())'
            )
        losses = losses.reshape(1)
    elif (count := batches.size(problem.batch)) is not None and losses.shape[0] != count:
        raise ValueError(
            f"the closure returned losses of shape {tuple(losses.shape)} for a batch of {count} "
            f"samples; dimension 0 must count the samples (for positions: (B, T), not (B·T,); a "
            f"list of mappings is one sample a mapping, and collated parts stand in a tuple)"
        )
    if not losses.is_floating_point():
        raise TypeError(f"losses must be real floating point, received {losses.dtype}")
    if attached and not losses.requires_grad:
        raise ValueError(
            "the losses depend on no parameter that requires a gradient; look for detach(), "
            "no_grad() or a model whose parameters are all frozen"
        )
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)


def check_reached(reached: Iterable[Any], parameters: Sequence[Tensor]) -> None:
    """Refuse losses that depend on none of the parameters, and sparse gradients.

    Args:
        reached: what was found per parameter or use; nothing or None alone is a refusal.
        parameters: that were looked for.

    Raises:
        ValueError: with the way out.
    """
    reached = list(reached)
    if any(isinstance(item, Tensor) and item.is_sparse for item in reached):
        raise ValueError(
            "an operation gives sparse gradients, which have no Hessian products here: use its "
            "dense form (an Embedding with sparse=False)"
        )
    if all(item is None for item in reached):
        raise ValueError(
            f"the losses depend on none of the {len(parameters)} parameters: does the closure run "
            f"the model that was handed over, on the batch that it is given?"
        )


@contextmanager
def _untouched_grads(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Set .grad aside, so that a backward() in the closure shows and does no harm."""
    grads = [p.grad for p in parameters]
    for p, g in zip(parameters, grads, strict=True):
        if g is not None:
            p.grad = None
    try:
        yield
    finally:
        for p, g in zip(parameters, grads, strict=True):
            if p.grad is not g:
                p.grad = g
