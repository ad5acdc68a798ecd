"""The state around a closure that can be put back, and functions that can be run again."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.closure.randomness import RandomStates

R = TypeVar("R")


S = TypeVar("S")


class Snapshot:
    """Everything a closure may change besides its result: buffers, random states, .grad.

    Args:
        problem: whose model, parameters and generator are looked after.
        random: the random states of now, if they have been read; default those of torch and Python.
    """

    def __init__(self, problem: Problem, random: RandomStates | None = None) -> None:
        # By place, since a forward pass may put a new tensor there instead of writing into the old.
        self._buffers = [
            (module, name, b, None if b is None else b.detach().clone())
            for module in (problem.model.modules() if problem.model is not None else ())
            for name, b in module._buffers.items()
        ]
        self._grads = [(p, p.grad) for p in problem.parameters]
        self._generator = problem.generator
        self._drawn = problem.generator.get_state() if problem.generator is not None else None
        self._random = random or RandomStates(_devices(problem))

    def covers(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are the problem's parameters, in order."""
        return [id(p) for p, _ in self._grads] == [id(p) for p in parameters]

    def drawn(self) -> bool:
        """Whether random numbers have been drawn from torch's generators since."""
        return self._random.drawn()

    def lend_buffers(self, first: "Snapshot | None" = None) -> None:
        """Let a forward pass write into copies.

        Args:
            first: whose values they have; default those of now.

        `restore` then writes into no tensor that the graph of that pass has kept: a BatchNorm in
        training keeps its running statistics.
        """
        copies: dict[int, Tensor] = {}
        for module, name, buffer, value in (first or self)._buffers:
            if buffer is None or value is None:
                module._buffers[name] = None
            else:
                module._buffers[name] = copies.setdefault(id(buffer), value.clone())

    def restore_buffers(self) -> None:
        """Put every buffer back to its value at construction."""
        with torch.no_grad():
            for module, name, buffer, value in self._buffers:
                module._buffers[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)

    def restore(self) -> None:
        """Put everything back to its state at construction."""
        self.restore_buffers()
        for p, g in self._grads:
            p.grad = g
        if self._generator is not None and self._drawn is not None:
            self._generator.set_state(self._drawn)
        self._random.restore()


class Replay(Generic[R]):
    """A function of no arguments that can be run again as if it were the first time.

    The first call draws random numbers and updates buffers as usual. Every further one sees the
    random state and the buffers of the first (the same dropout masks, the same running means) and
    leaves no trace: random states and buffers are as before the call.

    Args:
        function: what to run.
        problem: whose buffers and devices are looked after.
        numpy: whether numpy's random state is, too; that takes a third of a millisecond.
    """

    def __init__(self, function: Callable[..., R], problem: Problem, *, numpy: bool = True) -> None:
        self._function = function
        self._problem = problem
        self._numpy = numpy
        self._first: RandomStates | None = None
        self._before: Snapshot | None = None
        self.generators: dict[torch.Generator, Tensor] = {}
        """Generators of the user's, and their states when the first call began."""

    def __call__(self, *args: Any) -> R:
        """The function's result."""
        if self._first is None:
            self._first = self._states()
            if not self._problem.repeatable:
                self._before = Snapshot(self._problem, self._first)
            return self._function(*args)
        return self.once_more(lambda: self._function(*args))

    def drawn(self) -> bool:
        """Whether torch's random numbers have been drawn since the first call began."""
        assert self._first is not None
        return self._first.drawn()

    def drawn_from_numpy(self) -> bool:
        """Whether numpy's have been; False where its state is not looked after."""
        assert self._first is not None
        return self._first.drawn_from_numpy()

    def drawn_outside(self) -> bool:
        """Whether Python's or numpy's have been."""
        assert self._first is not None
        return self._first.drawn_from_python() or self._first.drawn_from_numpy()

    def once_more(self, function: Callable[[], S]) -> S:
        """The result of another function, in the surroundings of the first call."""
        assert self._first is not None
        if self._problem.repeatable:
            return function()
        snapshot = Snapshot(self._problem, self._states())
        snapshot.lend_buffers(self._before)
        self._first.restore()
        for generator, state in self.generators.items():
            generator.set_state(state)
        try:
            return function()
        finally:
            snapshot.restore()

    def _states(self) -> RandomStates:
        return RandomStates(_devices(self._problem), self.generators, numpy=self._numpy)


def _devices(problem: Problem) -> set[torch.device]:
    return {p.device for p in problem.parameters if p.device.type != "cpu"}
