"""A sweep over data: one `Problem` a batch, after which the model is as it was before."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Generator, Tensor, nn

from f3eo.closure.problem import Closure, Problem
from f3eo.closure.snapshot import RandomStates, Snapshot, accelerators

Data = Iterable[Any]
"""Batches, each a tuple or list of the closure's arguments; anything else is one argument."""


def problems(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    generator: Generator | None = None,
) -> Iterator[Problem]:
    """A problem for every batch of the data, in the mode that the model is in.

    When the sweep ends, buffers, .grad and the global random states are as they were before it. So
    the next sweep meets the same dropout masks, and the same order of a shuffling DataLoader.

    Args:
        model: a module, or its parameters; those that require no gradient do not count.
        closure: called with the arguments of a batch.
        data: the batches, such as a DataLoader or `[(x, y)]`.
        generator: source of random labels, which moves on; None is torch's global one.

    Raises:
        ValueError: no parameter requires a gradient, no batch, or a batch without samples.
        TypeError: data that is a tensor or a mapping.
    """
    if isinstance(data, (Tensor, Mapping)):
        raise TypeError(
            f"data holds batches, each a tuple of the closure's arguments, received a "
            f"{type(data).__name__}; for one batch use [(x, y)]"
        )
    module = model if isinstance(model, nn.Module) else None
    parameters = list(model.parameters() if isinstance(model, nn.Module) else model)
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ValueError(
            f"none of the {len(parameters)} parameters has requires_grad=True: there is nothing to "
            f"measure; pass a model, or tensors, that require a gradient"
        )
    bare = Problem(closure, (), trained, [True] * len(trained), module)
    before = Snapshot(bare, RandomStates(accelerators(bare), numpy=True))
    position = -1
    try:
        for position, batch in enumerate(data):
            arguments = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
            problem = replace(bare, batch=arguments, generator=generator)
            if problem.size == 0:
                raise ValueError(f"batch {position} of the data holds no samples: leave it out")
            yield problem
    finally:
        before.restore()
    if position < 0:
        raise ValueError(
            "the data holds no batch; pass [(x, y)] or a DataLoader (an iterator that was used up "
            "gives nothing a second time)"
        )
