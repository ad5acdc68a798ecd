"""A measurement recorded as one graph of operations, run, and compared with the original."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from f3eo.closure.batch import tensors
from f3eo.closure.draws import Draws
from f3eo.closure.problem import Closure, Problem
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.lengths import Places, Sizes
from f3eo.fisher.sample_norms import norms_from, tensors_of
from f3eo.tensors import plus, squared_norm

if TYPE_CHECKING:
    from f3eo.fisher.symbols import Symbols

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
        symbols: sizes of the batch that may vary; default none.
    """

    def __init__(
        self,
        operations: GraphModule,
        to_gradients: Callable[[list[Tensor]], Gradients],
        symbols: "Symbols | None" = None,
    ) -> None:
        self._run: Callable[..., list[Tensor]] = operations
        self._to_gradients = to_gradients
        self._symbols = symbols
        self._compiled = False

    def compile(self, backend: str) -> None:
        """Compile the operations by `torch.compile`, at their next run."""
        options: Any = {"options": OPTIONS} if backend == "inductor" else {}
        dynamic = None if self._symbols is not None else False
        self._run = torch.compile(self._run, backend=backend, dynamic=dynamic, **options)
        self._compiled = True

    def admits(self, sizes: Sizes) -> bool:
        """Whether it holds for a batch of these sizes, if it was recorded with symbols."""
        return self._symbols is not None and self._symbols.admit(sizes)

    @torch.no_grad()
    def __call__(self, problem: Problem, *index: Tensor) -> Gradients:
        """Run the operations on another batch of the same shapes."""
        batch = list(tensors(problem.batch))
        if self._symbols is not None and self._compiled:
            batch = self._symbols.mark(batch)
        return self._to_gradients(self._run(problem.parameters, batch, list(index)))


def recorded(
    measure: Measure, problem: Problem, *index: Tensor, places: Places = frozenset()
) -> Graph:
    """Run a measurement and record its operations.

    Random numbers are drawn once, as in a step that is not recorded, and used in every pass.

    Args:
        measure: a method of an estimator.
        problem: closure, batch and parameters.
        index: further arguments of the measurement.
        places: where sizes of the batch become symbols; default nowhere.

    Raises:
        RuntimeError: the closure writes into buffers or into its batch, or draws random numbers
            that cannot be drawn in a graph.
        Exception: what stops the recorder (a branch on values, an operation without a fake run).
    """
    results: list[Gradients] = []
    symbols, draws = _symbols(places), Draws()
    given = problem.batch if symbols is None else symbols.replace_sizes(problem.batch)
    known = replace(
        problem, closure=_compiling(problem.closure), batch=given, repeatable=True, draws=draws
    )

    # The recorder knows its inputs by identity, so the closure may read them from anywhere.
    def flat(parameters: list[Tensor], batch: list[Tensor], index: list[Tensor]) -> list[Tensor]:
        with draws:
            gradients = measure(known, *index)
        results.append(gradients)
        return [t for part in _parts(gradients) for t in part if t is not None]

    versions = _versions(known)
    with symbols.recording() if symbols is not None else nullcontext():
        operations = make_fx(flat)(problem.parameters, list(tensors(given)), list(index))
    if _versions(known) != versions:
        raise RuntimeError("the closure writes into buffers or into its batch")
    return Graph(operations, _unflat(results[-1]), symbols)


def _symbols(places: Places) -> "Symbols | None":
    """Symbols at these places; they are imported where there are any."""
    if not places:
        return None
    from f3eo.fisher.symbols import Symbols  # takes a second

    return Symbols(places)


def _compiling(closure: Closure) -> Closure:
    """The closure as if `torch.compile` ran it.

    Libraries ask `torch.compiler.is_compiling()` before they branch on values, such as those of an
    attention mask, and take the branch that holds for all.
    """

    def compiling(*batch: Any) -> Any:
        before = torch.compiler._is_compiling_flag
        torch.compiler._is_compiling_flag = True
        try:
            return closure(*batch)
        finally:
            torch.compiler._is_compiling_flag = before

    return compiling


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
