"""Steps of one of several processes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import SGD

from cases import WHOLE
from f3eo import F3EO, DoubleBackward, PerSample


def exact(model: Any, **options: Any) -> F3EO:
    return F3EO(model, SGD, lr=0.05, **WHOLE | {"estimator": PerSample(DoubleBackward())} | options)


def own(batch: Any, rank: int, world: int) -> tuple[Tensor, ...]:
    return tuple(t.chunk(world)[rank] for t in batch)


def raised(step: Callable[[], Any]) -> str:
    """The error of a step in words, with its type."""
    try:
        step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
