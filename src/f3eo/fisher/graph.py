"""A measurement recorded as one graph of operations, run, and compared with the original."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from f3eo.closure.batch import tensors
from f3eo.closure.problem import Problem
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.sample_norms import norms_from, tensors_of
from f3eo.tensors import plus, squared_norm

Measure = Callable[..., Gradients]
"""Measures a batch: (problem, *indices) → Gradients."""

TINY = 1e-5
"""Absolute difference that always agrees: losses near 0 are differences of larger numbers."""

OPTIONS = {"fallback_random": True, "layout_optimization": False}
"""Of the inductor backend: random numbers as torch draws them, in the same order; convolutions in
the layout they have, because to convert it for one weight per sample costs more than it gains
(twice, on a ResNet)."""


class Graph:
    """The operations of one measurement, which need no Python between them.

    Args:
        operations: (parameters, tensors of the batch, indices) → tensors.
        to_gradients: puts these tensors into their places.
    """

    def __init__(
        self, operations: GraphModule, to_gradients: Callable[[list[Tensor]], Gradients]
    ) -> None:
        self._run: Callable[..., list[Tensor]] = operations
        self._to_gradients = to_gradients

    def compile(self, backend: str) -> None:
        """Compile the operations by `torch.compile`, at their next run."""
        options: Any = {"options": OPTIONS} if backend == "inductor" else {}
        self._run = torch.compile(self._run, backend=backend, dynamic=False, **options)

    @torch.no_grad()
    def __call__(self, problem: Problem, *index: Tensor) -> Gradients:
        """Run the operations on another batch of the same shapes."""
        batch = list(tensors(problem.batch))
        return self._to_gradients(self._run(problem.parameters, batch, list(index)))


def recorded(measure: Measure, problem: Problem, *index: Tensor) -> Graph:
    """Run a measurement and record its operations.

    Args:
        measure: a method of an estimator.
        problem: closure, batch and parameters.
        index: further arguments of the measurement.

    Raises:
        RuntimeError: the closure writes into buffers or into its batch.
        Exception: what stops the recorder (a branch on values, an operation without a fake run).
    """
    results: list[Gradients] = []

    # The recorder knows its inputs by identity, so the closure may read them from anywhere.
    def flat(parameters: list[Tensor], batch: list[Tensor], index: list[Tensor]) -> list[Tensor]:
        gradients = measure(replace(problem, repeatable=True), *index)
        results.append(gradients)
        return [t for part in _parts(gradients) for t in part if t is not None]

    versions = _versions(problem)
    operations = make_fx(flat)(problem.parameters, list(tensors(problem.batch)), list(index))
    if _versions(problem) != versions:
        raise RuntimeError("the closure writes into buffers or into its batch")
    return Graph(operations, _unflat(results[-1]))


def _parts(gradients: Gradients) -> list[list[Tensor | None]]:
    """All tensors of a measurement; a number of samples is a constant, a sum of weights is not."""
    weight = gradients.weight if isinstance(gradients.weight, Tensor) else None
    scalars = gradients.loss, gradients.trace, weight, gradients.error
    norms = tensors_of(gradients.norms)
    structure, squares = gradients.structure or [], gradients.squares or []
    return [list(scalars), [*structure], gradients.gradient, norms, [*squares]]


def _unflat(like: Gradients) -> Callable[[list[Tensor]], Gradients]:
    """A function that puts the flat tensors into their places.

    Args:
        like: has a tensor in each place that is filled.
    """
    present = [[t is not None for t in part] for part in _parts(like)]
    count = None if isinstance(like.weight, Tensor) else like.weight
    has_structure, has_squares = like.structure is not None, like.squares is not None
    to_norms = norms_from(like.norms)

    def gradients(results: list[Tensor]) -> Gradients:
        rest = iter(results)
        scalars, structure, gradient, norms, squares = (
            [next(rest) if here else None for here in part] for part in present
        )
        loss, trace, weight, error = scalars
        assert loss is not None
        return Gradients(
            loss=loss,
            weight=weight if count is None else count,  # pyright: ignore[reportArgumentType]
            gradient=gradient,
            structure=structure if has_structure else None,  # pyright: ignore[reportArgumentType]
            trace=trace,
            error=error,
            norms=to_norms(norms),
            squares=squares if has_squares else None,  # pyright: ignore[reportArgumentType]
        )

    return gradients


def _versions(problem: Problem) -> list[tuple[int, int]]:
    """The tensors that a closure must not write into, and how often they have been written."""
    buffers = problem.model.buffers() if problem.model is not None else ()
    constant = (*problem.parameters, *buffers, *tensors(problem.batch))
    return [(id(t), t._version) for t in constant]


def agree(result: Gradients, truth: Gradients, *, structure: bool) -> bool:
    """Whether two results differ by rounding alone; what is not finite is not compared.

    Args:
        result, truth: of the graph and of the estimator itself.
        structure: whether h is compared too; late in training differences may be all rounding.
    """

    def close(a: Sequence[Tensor | None] | None, b: Sequence[Tensor | None] | None) -> bool:
        a, b = ([t for t in part or () if t is not None] for part in (a, b))
        if not b:
            return not a
        allowed = torch.finfo(b[0].dtype).eps ** 0.25
        error, length = squared_norm(plus(a, b, -1.0)).sqrt(), squared_norm(b).sqrt()
        return bool(error <= allowed * length + TINY) or not bool(length.isfinite())

    return (
        close([result.loss], [truth.loss])
        and close([result.trace], [truth.trace])
        and close(result.gradient, truth.gradient)
        and (not structure or close(result.structure, truth.structure))
    )
