"""State that a forward pass may change, recorded and restored: buffers, random states and .grad."""

import random
import sys
from collections.abc import Iterable
from pickle import dumps
from typing import Any

import torch
from torch import Generator, Tensor, nn

from f3eo.closure.problem import Problem


class RandomStates:
    """States of random generators at construction: torch's, Python's, numpy's and given ones.

    Generators of other libraries are not covered; `f3eo.fisher.guard` detects their effect.

    Args:
        devices: accelerators whose generators are recorded, beside the CPU's.
        generators: further torch generators.
        numpy: whether numpy's global state is recorded; reading and setting it take 0.15 ms each.
    """

    def __init__(
        self,
        devices: Iterable[torch.device],
        generators: Iterable[Generator] = (),
        *,
        numpy: bool = False,
    ) -> None:
        self._devices = set(devices)
        self._torch = _torch_states(self._devices)
        self._python = random.getstate()
        self._generators = [(g, g.get_state()) for g in generators]
        self._numpy = _numpy_state() if numpy else None

    def torch_changed(self) -> bool:
        """Whether torch's default generators have drawn numbers since construction."""
        now = _torch_states(self._devices)
        return any(not torch.equal(a, b) for (_, a), (_, b) in zip(self._torch, now, strict=True))

    def python_changed(self) -> bool:
        """Whether Python's generator has drawn numbers since construction."""
        return self._python != random.getstate()

    def numpy_changed(self) -> bool:
        """Whether numpy's global generator has drawn numbers; False if it is not recorded."""
        return self._numpy is not None and dumps(self._numpy) != dumps(_numpy_state())

    def restore(self) -> None:
        """Set every recorded generator back to its state at construction."""
        for device, state in self._torch:
            if device.type == "cpu":
                torch.set_rng_state(state)
            else:
                torch.get_device_module(device).set_rng_state(state, device)
        random.setstate(self._python)
        for generator, state in self._generators:
            generator.set_state(state)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)


class Snapshot:
    """Buffers, random states and .grad at construction: all that a closure may change.

    Args:
        problem: its model, parameters and generator are recorded.
        random_states: current random states, if already read; default torch's and Python's.
    """

    def __init__(self, problem: Problem, random_states: RandomStates | None = None) -> None:
        # A forward pass may write into a buffer or put a new tensor in its place.
        self._buffers = [
            (module, name, b, None if b is None else b.detach().clone())
            for module in all_modules(problem.model)
            if module._buffers
            for name, b in module._buffers.items()
        ]
        self._grads = [(p, p.grad) for p in problem.parameters]
        self._generator = problem.generator
        self._generator_state = None if self._generator is None else self._generator.get_state()
        self._random = random_states or RandomStates(accelerators(problem))

    def torch_random_changed(self) -> bool:
        """Whether torch's default generators have drawn numbers since construction."""
        return self._random.torch_changed()

    def install_buffer_copies(self, source: "Snapshot | None" = None) -> None:
        """Replace every buffer by a copy, for a forward pass to write into.

        The graph of that pass may keep a buffer, as that of a BatchNorm in training does. `restore`
        then writes into none of the tensors that it keeps.

        Args:
            source: snapshot that gives the values of the copies; default this one.
        """
        copies: dict[int, Tensor] = {}
        for module, name, buffer, value in (source or self)._buffers:
            if buffer is None or value is None:
                module._buffers[name] = None
            else:
                module._buffers[name] = copies.setdefault(id(buffer), value.clone())

    def restore_buffers(self) -> None:
        """Put the original buffers back, with their values at construction."""
        with torch.no_grad():
            for module, name, buffer, value in self._buffers:
                module._buffers[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)

    def restore(self) -> None:
        """Put buffers, .grad and random states back."""
        self.restore_buffers()
        for p, g in self._grads:
            p.grad = g
        if self._generator is not None and self._generator_state is not None:
            self._generator.set_state(self._generator_state)
        self._random.restore()


def all_modules(model: nn.Module | None) -> list[nn.Module]:
    """The model and every module in it, each once, as `model.modules()` but in less time."""
    found = {} if model is None else {id(model): model}
    waiting = list(found.values())
    while waiting:
        for module in waiting.pop()._modules.values():
            if module is not None and id(module) not in found:
                found[id(module)] = module
                waiting.append(module)
    return list(found.values())


def accelerators(problem: Problem) -> set[torch.device]:
    """Devices of the parameters, without the CPU."""
    return {p.device for p in problem.parameters if not p.is_cpu}


def _torch_states(devices: set[torch.device]) -> list[tuple[torch.device, Tensor]]:
    states = [(torch.device("cpu"), torch.get_rng_state())]
    return states + [(d, torch.get_device_module(d).get_rng_state(d)) for d in devices]


def _numpy_state() -> Any:
    """State of numpy's global generator; None if numpy is not imported, so nothing can draw."""
    numpy = sys.modules.get("numpy")
    return numpy.random.get_state() if numpy is not None else None
