"""Random numbers of a recorded measurement: drawn in its first pass, and the same in later ones."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DRAWS = {
    *("bernoulli", "bernoulli_", "binomial", "cauchy_", "exponential_", "geometric_"),
    *("log_normal_", "multinomial", "native_dropout", "normal", "normal_", "poisson"),
    *("rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_"),
    *("randperm", "uniform", "uniform_"),
}
"""Operations whose random numbers can be used again; of other ones the result depends on inputs."""


class Draws(TorchDispatchMode):
    """Context of a recording, in which a repeated pass takes over the numbers of the first.

    Eagerly `Replay` puts random states back instead, which a graph of operations cannot.

    Raises:
        RuntimeError: in the context, at random numbers that cannot be drawn in a graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Tensor] = []
        self._again: Iterator[Tensor] | None = None

    def start(self) -> None:
        """What is drawn from now on is what `again` repeats."""
        self._kept = []

    @contextmanager
    def again(self) -> Iterator[None]:
        """Context in which the numbers since `start` come again, in their order."""
        before, self._again = self._again, iter(self._kept)
        try:
            yield
        finally:
            self._again = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or _draws_none(func, args, kwargs):
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in DRAWS:
            raise RuntimeError(
                f"{name} draws random numbers inside of one operation: choose a form that draws "
                f"them apart (attention with dropout in its mathematical form), or no dropout there"
            )
        if kwargs.get("generator") is not None:
            raise RuntimeError("the closure draws from a generator of its own")
        if self._again is None:
            result = func(*args, **kwargs)
            drawn = result[1] if name == "native_dropout" else result
            self._kept.append(drawn.clone())  # it may be written into
            return result
        drawn = next(self._again)
        if name == "native_dropout":
            scale = 0.0 if args[1] == 1 else 1 / (1 - args[1])
            return args[0] * drawn.to(args[0].dtype) * scale, drawn
        return args[0].copy_(drawn) if name.endswith("_") else drawn.clone()


def _draws_none(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the operation has dropout that is switched off."""
    for k, argument in enumerate(func._schema.arguments):
        value = args[k] if k < len(args) else kwargs.get(argument.name, argument.default_value)
        if argument.name in ("dropout_p", "dropout") and value == 0:
            return True
        if argument.name == "train" and value is False:
            return True
    return False
