"""Random states that a closure may draw from: torch's, Python's, numpy's, and generators it uses.

What draws elsewhere (a generator held by a library, a counter) cannot be put back, and is found by
what it does (`f3eo.curvature.mismatch`).
"""

import random
import sys
from collections.abc import Callable, Iterable
from pickle import dumps
from typing import Any

import torch
from torch import Generator, Tensor

State = tuple[Callable[[Any], Any], Any]
"""What sets a state, and the state."""


class RandomStates:
    """The random states of a moment.

    Args:
        devices: accelerators whose generators count, beside the CPU's.
        generators: generators of the user's that count, too.
        numpy: whether numpy's global state does; it takes 0.15 ms to read and as long to set.
    """

    def __init__(
        self,
        devices: Iterable[torch.device],
        generators: Iterable[Generator] = (),
        *,
        numpy: bool = False,
    ) -> None:
        self._devices = set(devices)
        self._torch: list[tuple[torch.device, Tensor]] = _torch_states(self._devices)
        self._others: list[State] = [(random.setstate, random.getstate())]
        self._others += [(g.set_state, g.get_state()) for g in generators]
        self._numpy = _numpy_state() if numpy else None

    def drawn(self) -> bool:
        """Whether numbers have been drawn from torch's own generators since."""
        now = _torch_states(self._devices)
        return any(not torch.equal(a, b) for (_, a), (_, b) in zip(self._torch, now, strict=True))

    def drawn_from_python(self) -> bool:
        """Whether numbers have been drawn from Python's since."""
        return self._others[0][1] != random.getstate()

    def drawn_from_numpy(self) -> bool:
        """Whether numbers have been drawn from numpy's global state since, if that counts."""
        return self._numpy is not None and dumps(self._numpy) != dumps(_numpy_state())

    def restore(self) -> None:
        """Put all of them back."""
        for device, state in self._torch:
            if device.type == "cpu":
                torch.set_rng_state(state)
            else:
                torch.get_device_module(device).set_rng_state(state, device)
        for set_state, state in self._others:
            set_state(state)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)


def _torch_states(devices: set[torch.device]) -> list[tuple[torch.device, Tensor]]:
    found = [(torch.device("cpu"), torch.get_rng_state())]
    return found + [(d, torch.get_device_module(d).get_rng_state(d)) for d in devices]


def _numpy_state() -> Any:
    """None where numpy is not loaded: nothing can have drawn from it."""
    numpy = sys.modules.get("numpy")
    return numpy.random.get_state() if numpy is not None else None
