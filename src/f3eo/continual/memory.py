"""The interface of every memory: some samples of all that went by."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from f3eo.closure.batch import size
from f3eo.continual.store import Store
from f3eo.shown import Shown


class Memory(Shown, ABC):
    """Samples of earlier batches, of any form that a closure takes (`f3eo.closure.batch`).

    Args:
        generator: source of all that is random; default torch's global one.
        device: where samples are kept; default where they are. They come back on the device that
            they came from.
    """

    def __init__(
        self, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> None:
        self.generator = generator
        self.device = device
        self._store = Store(device)

    @abstractmethod
    def places(self, batch: tuple[Any, ...], count: int) -> Mapping[int, int]:
        """Where samples of a batch go: position in the memory → number of the sample.

        Positions are 0 to `len(self) − 1`, whose samples are replaced, and new ones after these.

        Args:
            batch: the closure's arguments.
            count: the number of its samples.
        """

    def add(self, *batch: Any) -> None:
        """Take in a batch, or some samples of it, or none.

        Args:
            batch: the closure's arguments; detached, and copied where they are kept.

        Raises:
            ValueError: no samples in dimension 0, or another form than that of earlier batches.
        """
        count = size(batch)
        if count is None:
            raise ValueError(
                "a memory keeps samples, and the closure is given none: pass the batch, "
                "step(closure, *batch), with the samples in dimension 0"
            )
        if count:
            self._store.put(self.places(batch, count), batch)

    def draw(self, samples: int) -> tuple[Any, ...] | None:
        """A batch of samples, each at most once, all equally likely; None from an empty memory.

        Args:
            samples: at most so many.
        """
        count = len(self)
        if not count:
            return None
        device = "cpu" if self.generator is None else self.generator.device
        index = torch.arange(count)
        if samples < count:
            order = torch.randperm(count, generator=self.generator, device=device)
            index = order[:samples].cpu()
        return self._store.take(index)

    def end_task(self) -> None:
        """What comes next belongs to another task; default nothing."""

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._store)

    def state_dict(self) -> dict[str, Any]:
        """Samples, counts and the state of the generator."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"samples": self._store.state_dict(), "generator": generator, **self.counters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._store.load_state_dict(state["samples"])
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"].cpu())
        self.load_counters(state)

    @abstractmethod
    def counters(self) -> dict[str, Any]:
        """What `places` has counted, by name."""

    @abstractmethod
    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """Continue from what `counters` returned, among other entries."""

    def _uniform(self, count: int) -> list[float]:
        """Numbers in [0, 1), in float64: their product with an integer n is below n, in floor."""
        device = "cpu" if self.generator is None else self.generator.device
        draws = torch.rand(count, generator=self.generator, device=device, dtype=torch.float64)
        return draws.tolist()
