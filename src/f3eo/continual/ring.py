"""The last samples of every task."""

from collections.abc import Mapping
from typing import Any

import torch

from f3eo.continual.memory import Memory
from f3eo.optimizer.checks import in_range


class Ring(Memory):
    """Keeps the last samples of each task; `end_task`, called at `consolidate`, begins the next.

    Args:
        per_task: number of samples a task, so that the memory grows with the tasks.
        generator, device: see `Memory`.

    Raises:
        TypeError, ValueError: a number that is no positive integer.

    Source: Lopez-Paz & Ranzato 2017 (1706.08840), section 3.
    """

    def __init__(
        self,
        per_task: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(generator, device)
        self.per_task = in_range("per_task", per_task, 0, None, integer=True)
        self._first = 0  # position of the present task's samples
        self._seen = 0  # samples of the present task

    def places(self, batch: tuple[Any, ...], count: int) -> Mapping[int, int]:
        """See `Memory.places`."""
        found: dict[int, int] = {}
        for sample in range(count):
            found[self._first + self._seen % self.per_task] = sample
            self._seen += 1
        return found

    def end_task(self) -> None:
        """See `Memory.end_task`."""
        self._first, self._seen = len(self), 0

    def counters(self) -> dict[str, Any]:
        """See `Memory.counters`."""
        return {"first": self._first, "seen": self._seen}

    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """See `Memory.load_counters`."""
        self._first, self._seen = counters["first"], counters["seen"]
