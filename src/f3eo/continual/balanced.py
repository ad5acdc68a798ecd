"""Equal numbers of samples of every class, or of every task."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from f3eo.continual.memory import Memory
from f3eo.optimizer.checks import in_range


class Balanced(Memory):
    """Keeps as many samples of every class as of any other, each class sampled uniformly.

    A class is full from when it is the largest in a memory without a free place. A new sample of a
    class that is not full replaces one of a largest class, chosen at random; one of a full class c
    replaces one of its own with probability m_c/n_c, of m_c samples kept and n_c seen.

    Args:
        size: number of samples.
        key: `key(*batch)` gives the class, or the task, of every sample, an integer tensor (B,).
        generator, device: see `Memory`.

    Raises:
        TypeError, ValueError: a size that is no positive integer, or a key that is no function.

    Source: Chrysakis & Moens 2020, "Online continual learning from imbalanced data", algorithm 1.
    """

    def __init__(
        self,
        size: int,
        key: Callable[..., Tensor],
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(generator, device)
        self.size = in_range("size", size, 0, None, integer=True)
        if not callable(key):
            raise TypeError(
                f"key must be a function of the batch, such as lambda x, y: y, received {key!r}"
            )
        self.key = key
        self._kept: dict[int, list[int]] = {}  # positions of the samples of a class
        self._seen: dict[int, int] = {}
        self._full: set[int] = set()

    def places(self, batch: tuple[Any, ...], count: int) -> Mapping[int, int]:
        """See `Memory.places`.

        Raises:
            ValueError: the key does not give one class a sample.
        """
        labels = self.key(*batch)
        if not isinstance(labels, Tensor) or labels.shape != (count,):
            received = tuple(labels.shape) if isinstance(labels, Tensor) else repr(labels)
            raise ValueError(
                f"key(*batch) must give a tensor with the class of each of {count} samples, "
                f"received {received}"
            )
        found: dict[int, int] = {}
        draws = self._uniform(2 * count)
        for sample, label in enumerate(map(int, labels.tolist())):
            position = self._place(label, *draws[2 * sample : 2 * sample + 2])
            if position is not None:
                found[position] = sample
        return found

    def _place(self, label: int, first: float, second: float) -> int | None:
        """The position of a new sample, from two numbers in [0, 1); None leaves it out."""
        own = self._kept.setdefault(label, [])
        seen = self._seen[label] = self._seen.get(label, 0) + 1
        filled = sum(map(len, self._kept.values()))
        if filled < self.size:
            own.append(filled)
            return filled
        self._full.update(self._largest())
        if label in self._full:
            return own[int(second * len(own))] if first * seen < len(own) else None
        largest = self._largest()
        other = self._kept[largest[int(first * len(largest))]]
        position = other.pop(int(second * len(other)))
        own.append(position)
        return position

    def _largest(self) -> list[int]:
        most = max(map(len, self._kept.values()))
        return [label for label, positions in self._kept.items() if len(positions) == most]

    def counters(self) -> dict[str, Any]:
        """See `Memory.counters`."""
        kept = {label: list(positions) for label, positions in self._kept.items()}
        return {"kept": kept, "seen": dict(self._seen), "full": sorted(self._full)}

    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """See `Memory.load_counters`."""
        self._kept = {label: list(positions) for label, positions in counters["kept"].items()}
        self._seen, self._full = dict(counters["seen"]), set(counters["full"])
