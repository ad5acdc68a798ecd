"""Samples of batches, kept one a row, written and read by position."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.samples import copied, equal_forms, put_together, taken_apart


class Store:
    """Rows of everything that holds samples in a batch; all batches have one nesting.

    Args:
        device: where the rows are kept; default where the first batch is. What is read comes back
            on the device of the batch written last.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self._device = None if device is None else torch.device(device)
        self._form: Any = None
        self._rows: list[Any] = []
        """Of every value: a tensor (capacity, …), or a list with one entry a sample."""
        self._devices: list[str] = []
        self._kinds: list[type] = []
        self._count = 0

    def __len__(self) -> int:
        """The number of samples."""
        return self._count

    def put(self, places: Mapping[int, int], batch: tuple[Any, ...]) -> None:
        """Write samples of a batch, detached.

        Args:
            places: position → number of the sample in the batch; new positions follow the last.
            batch: the closure's arguments.

        Raises:
            ValueError: a nesting, constant, shape or dtype that differs from what is kept.
        """
        if not places:
            return
        form, values = taken_apart(batch)
        if not self._rows:
            self._form = form
            self._rows = [self._empty(value) for value in values]
            self._kinds = list(map(type, values))
        if not equal_forms(form, self._form):
            raise ValueError(
                f"a memory keeps samples of batches of one form, here {self._form!r}, received "
                f"{form!r}: let the closure take the same arguments at every step, and put what "
                f"changes from batch to batch into a tensor with one entry a sample"
            )
        self._count = max(self._count, max(places) + 1)
        to, index = (torch.tensor(list(half)) for half in (places.keys(), places.values()))
        for number, (row, value) in enumerate(zip(self._rows, values, strict=True)):
            if not isinstance(value, Tensor):
                row += [None] * (self._count - len(row))
                for position, sample in places.items():
                    row[position] = copied(value[sample], self._device)
                continue
            row = self._rows[number] = self._grown(row)
            if (row.shape[1:], row.dtype) != (value.shape[1:], value.dtype):
                raise ValueError(
                    f"a memory keeps samples of one shape, here {tuple(row.shape[1:])} of "
                    f"{row.dtype}, received {tuple(value.shape[1:])} of {value.dtype}: pad them"
                )
            new = value.detach().index_select(0, index.to(value.device))
            row.index_copy_(0, to.to(row.device), new.to(row.device))
        self._devices = [str(v.device) if isinstance(v, Tensor) else "" for v in values]

    def take(self, index: Tensor) -> tuple[Any, ...]:
        """A batch of the samples at these positions, 1-D, int64."""
        return self._batch(index, self._devices)

    def state_dict(self) -> dict[str, Any]:
        """All samples as one batch, and the devices they came from."""
        batch = self._batch(torch.arange(self._count), [""] * len(self._rows))
        return {"batch": batch if self._count else None, "devices": list(self._devices)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._form, self._rows, self._count = None, [], 0
        if state["batch"] is not None:
            batch = state["batch"]
            _, values = taken_apart(batch)
            self.put({i: i for i in range(len(values[0]))}, batch)
        self._devices = list(state["devices"])

    def _batch(self, index: Tensor, devices: list[str]) -> tuple[Any, ...]:
        values = []
        for row, device, kind in zip(self._rows, devices, self._kinds, strict=True):
            if isinstance(row, Tensor):
                own = row.index_select(0, index.to(row.device))
                values.append(own.to(device) if device else own)
            else:
                values.append(kind(row[i] for i in index.tolist()))
        return put_together(self._form, values)

    def _empty(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return []
        device = self._device or value.device
        return torch.empty((0, *value.shape[1:]), dtype=value.dtype, device=device)

    def _grown(self, row: Tensor) -> Tensor:
        """A row tensor with a place for every sample, and as many again where it had to grow."""
        if len(row) >= self._count:
            return row
        grown = row.new_empty((max(self._count, 2 * len(row)), *row.shape[1:]))
        grown[: len(row)] = row
        return grown
