"""Sizes of a batch as symbols, so that one recording holds for samples of many lengths.

Imported where such a recording is made: torch's symbolic shapes take a second to import.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo import mark_dynamic
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from f3eo.closure import batch as batches
from f3eo.fisher.lengths import SMALLEST, Places, Sizes


class Symbols:
    """The sizes of a batch at some places as symbols, and what a recording supposes of them.

    Args:
        places: the places.
    """

    def __init__(self, places: Places) -> None:
        self._places = sorted(places)
        self._shapes = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self._shapes, allow_non_fake_inputs=True)
        self._symbols: list[Any] = []

    def replace_sizes(self, batch: Any) -> Any:
        """The batch with tensors that have shapes but no values."""
        given = batches.tensors(batch)
        symbolic = [self._symbolic(k, tensor) for k, tensor in enumerate(given)]
        sizes: list[Any] = [symbolic[k].shape[d] for k, d in self._places]
        self._symbols = [size.node.expr for size in sizes]
        following = iter(symbolic)
        return batches.map_tensors(lambda _: next(following), batch)

    def _symbolic(self, number: int, tensor: Tensor) -> Tensor:
        varies = [(number, d) in self._places for d in range(tensor.ndim)]
        context: Any = StatelessSymbolicContext(
            [DimDynamic.DYNAMIC if own else DimDynamic.STATIC for own in varies]
        )
        return self._mode.from_tensor(tensor, symbolic_context=context)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Context in which operations run on symbols; parameters and constants stay as they are."""
        with self._mode, enable_python_dispatcher():
            yield

    def admit(self, sizes: Sizes) -> bool:
        """Whether what was recorded holds for a batch of these sizes."""
        values = [sizes[k][d] for k, d in self._places]
        given = dict(zip(self._symbols, values, strict=True))
        return min(values) >= SMALLEST and all(
            bool(guard.expr.subs(given)) for guard in self._shapes.guards
        )

    def mark(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors for `torch.compile`, which then compiles once for all lengths."""
        marked = [t.detach() for t in tensors]  # the caller's own stay unmarked
        for k, d in self._places:
            mark_dynamic(marked[k], d)
        return marked
