"""A batch taken apart into its nesting and the values that hold samples, and put together again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.batch import map_items, map_samples


@dataclass(frozen=True)
class Place:
    """Where a value that holds samples stood in its batch.

    Args:
        number: of the value, depth first.
    """

    number: int


def taken_apart(batch: Any) -> tuple[Any, list[Any]]:
    """The nesting with a `Place` for everything that holds samples, and these values in order.

    Args:
        batch: see `f3eo.closure.batch`; constants stay in the nesting.
    """
    values: list[Any] = []

    def take(value: Any) -> Place:
        values.append(value)
        return Place(len(values) - 1)

    return map_samples(take, batch), values


def put_together(form: Any, values: Sequence[Any]) -> Any:
    """The batch of a nesting and its values, the inverse of `taken_apart`."""
    if isinstance(form, Place):
        return values[form.number]
    return map_items(lambda item: put_together(item, values), form)


def equal_forms(a: Any, b: Any) -> bool:
    """Whether two nestings have the same types, keys, places and constants."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return torch.equal(a.detach().cpu(), b.detach().cpu())
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(equal_forms, a, b))
    if hasattr(a, "keys"):
        return a.keys() == b.keys() and all(
            [equal_forms(value, b[key]) for key, value in a.items()]
        )
    return a == b


def copied(value: Any, device: torch.device | None = None) -> Any:
    """A nesting with copies of its tensors, without their graphs.

    Args:
        value: the nesting.
        device: of the copies; default that of each tensor.
    """
    if isinstance(value, Tensor):
        return value.detach().to(device or value.device, copy=True)
    return map_items(lambda item: copied(item, device), value)
