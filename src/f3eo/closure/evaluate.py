"""One evaluation of a closure, with checks of what it returns."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from f3eo.closure.eager import eager_execution
from f3eo.closure.likelihood import Likelihood
from f3eo.closure.output import Output, Shares
from f3eo.closure.problem import Problem
from f3eo.closure.unwrapped import unwrapped
from f3eo.closure.weighted import Weighted
from f3eo.decompositions import Decomposed


def evaluate(
    problem: Problem,
    *,
    per_sample: bool,
    differentiable: bool,
    enable_grad: bool = True,
    mode: TorchFunctionMode | None = None,
    announced: bool = True,
) -> Output:
    """Run the closure once and check what it returns.

    Args:
        problem: closure, batch and parameters.
        per_sample: whether a scalar loss is refused; otherwise it counts as one sample.
        differentiable: whether the gradients of this pass are differentiated again; fused attention
            and recurrent kernels are then avoided (pytorch#116350, pytorch#5261).
        enable_grad: whether the pass builds a graph.
        mode: context of the closure, in which a compiled model runs as it is written. Default none,
            or `Decomposed` if `differentiable`, which sees composite operations as their parts.
        announced: whether `problem.on_output` is called.

    Returns:
        Losses of shape (B,), their shares and, if the closure returned one, the likelihood.

    Raises:
        TypeError: the closure returned neither a tensor nor `Weighted` nor a likelihood, or losses
            that are not floating point.
        ValueError: a scalar loss, a number of losses that is not that of the samples, losses that
            depend on no parameter, or weights that are negative or not finite.
        RuntimeError: the closure called `backward`.
    """
    without = _WithoutGrads(problem.parameters)
    with torch.set_grad_enabled(enable_grad), unwrapped(), without:
        if mode is None and not differentiable:  # with as few contexts as may be: many steps do so
            result = problem.closure(*problem.batch)
            losses, likelihood, weights = _read(result)
        else:
            with (
                eager_execution(differentiable=differentiable),
                mode or Decomposed(differentiable=True),
            ):
                result = problem.closure(*problem.batch)
                losses, likelihood, weights = _read(result)
        _check_no_grads(problem.parameters)
    losses = _check_losses(losses, problem, per_sample, enable_grad)
    if isinstance(result, Weighted) and not problem.repeatable:  # values are unknown in a recording
        result.check()
    output = Output(losses, likelihood, Shares(len(losses), weights))
    announced = announced and enable_grad and not problem.repeatable
    if announced and problem.on_output is not None:
        problem.on_output(output)
    return output


def _read(result: Any) -> tuple[Any, Likelihood | None, Tensor | None]:
    """Losses, the likelihood if it is one, and weights if there are any."""
    if isinstance(result, Tensor):
        return result, None, None
    if isinstance(result, Likelihood):
        return result.losses(), result, result.weights()
    if isinstance(result, Weighted):
        losses, weights = result.per_sample()
        return losses, None, weights
    return result, None, None


class _WithoutGrads:
    """Sets every .grad to None, and back at the end: a `backward()` in the closure then shows."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._grads = [(p, g) for p in parameters if (g := p.grad) is not None]
        self._parameters = parameters

    def __enter__(self) -> None:
        for p, _ in self._grads:
            p.grad = None

    def __exit__(self, *exc: Any) -> None:
        for p in self._parameters:
            p.grad = None
        for p, g in self._grads:
            p.grad = g


def _check_no_grads(parameters: Sequence[Tensor]) -> None:
    if any([p.grad is not None for p in parameters]):
        raise RuntimeError(
            "the closure called backward(): F3EO differentiates by itself; return the "
            "per-sample losses and remove backward() and zero_grad() from the closure; where a "
            "framework calls them, use its part of f3eo (Lightning: F3EOMixin of "
            "f3eo.integrations.lightning, or automatic_optimization=False)"
        )


def _check_losses(losses: Any, problem: Problem, per_sample: bool, enable_grad: bool) -> Tensor:
    """The losses of the samples, further dimensions averaged; shape (B,)."""
    if not isinstance(losses, Tensor):
        cure = "; if a wrapper calls step() without a closure, call accumulate(closure, *batch)"
        raise TypeError(
            f"the closure returns per-sample losses (a tensor), Weighted(losses, weights) or a "
            f"likelihood (Categorical, Gaussian), received {type(losses).__name__}"
            f"{cure + ' first' if losses is None else ''}"
        )
    if losses.ndim == 0:
        if per_sample:
            raise ValueError(
                "the closure returned a scalar loss, per-sample losses are needed: use "
                'reduction="none" so that dimension 0 counts the samples (or estimator=MiniBatch())'
            )
        losses = losses.reshape(1)
    elif problem.size is not None and losses.shape[0] != problem.size:
        raise ValueError(
            f"the closure returned losses of shape {tuple(losses.shape)} for a batch of "
            f"{problem.size} samples; dimension 0 must count the samples (for positions: (B, T), "
            f"not (B·T,); a list of mappings holds one sample a mapping, and collated mappings "
            f"stand in a tuple)"
        )
    if not losses.is_floating_point():
        raise TypeError(f"losses must be real floating point, received {losses.dtype}")
    if enable_grad and not losses.requires_grad:
        raise ValueError(
            "the losses depend on no parameter that requires a gradient; look for detach(), "
            "no_grad() or a model whose parameters are all frozen"
        )
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)


def check_reached(reached: Iterable[Any], parameters: Sequence[Tensor]) -> None:
    """Refuse losses that depend on none of the parameters, and sparse gradients.

    Args:
        reached: gradients of the parameters, None where the losses do not depend on one; or
            recorded uses of parameters.
        parameters: the parameters.

    Raises:
        ValueError: every entry is None, or one is a sparse tensor.
    """
    present = [item for item in reached if item is not None]
    if any([isinstance(item, Tensor) and item.is_sparse for item in present]):
        raise ValueError(
            "an operation gives sparse gradients, which have no Hessian products here: use its "
            "dense form (an Embedding with sparse=False)"
        )
    if not present:
        raise ValueError(
            f"the losses depend on none of the {len(parameters)} parameters: does the closure run "
            f"the model that was handed over, on the batch that it is given? Parameters that a "
            f"torch.autograd.Function takes (LoHa of peft) are hidden: use estimator=Sign() there"
        )
