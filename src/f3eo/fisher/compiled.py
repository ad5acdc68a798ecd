"""An estimator recorded once and run as one compiled graph."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode_stack as get_current_dispatch_mode_stack,
)

from f3eo.closure import batch as batches
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.snapshot import Snapshot
from f3eo.curvature import FiniteDifference
from f3eo.fisher.estimator import Estimator, Gradients
from f3eo.fisher.per_sample import PerSample
from f3eo.shown import call
from f3eo.tensors import plus, squared_norm

KINDS = 8
"""Kinds of step that are told apart: closures times shapes of batches."""

TINY = 1e-5
"""Absolute difference that is let pass: losses near 0 are differences of larger numbers."""


OPTIONS = {"fallback_random": True, "layout_optimization": False}
"""Random numbers as torch draws them, in the same order; convolutions with the layout they have,
since turning it around for one weight per sample costs more than it gives (twice, on a ResNet)."""


Own = Callable[..., Gradients]
"""A method of the estimator: (problem, *indices) -> what it measured."""


@dataclass
class _Recording:
    """How one kind of step is run, None where as it is, and how often it has been."""

    run: Own | None
    uses: int = 0


class Compiled(Estimator):
    """`PerSample` recorded once and run as one graph by `torch.compile`.

    The same numbers to rounding, without Python between the operations: on small networks a step
    costs a third of what it costs otherwise, on large ones a tenth less (docs/performance.md).

    A recording is made when a closure meets a batch of some shapes for the second time, which
    takes from some seconds to a minute or two; the last, smaller batch of an epoch is a shape of
    its own. From then on the closure is no longer called, so it must be the same function at every
    step, and depend on parameters, buffers and its batch alone; numbers that change from step to
    step belong into the batch. At the first use and at every power of two the recording is
    compared with the estimator itself.

    What cannot be recorded runs as it is, with one warning: a closure that is made anew at every
    step, takes no batch, branches on values, writes into buffers, or (with `FiniteDifference`)
    draws random numbers.

    Args:
        estimator: default `PerSample()`.
        backend: of `torch.compile`; default "inductor", which needs a C++ compiler on CPUs. None
            runs the recorded operations one by one: half of the gain, and nothing to wait for.

    Raises:
        TypeError: an estimator that is no `PerSample`.
    """

    additive = True

    def __init__(
        self, estimator: PerSample | None = None, *, backend: str | None = "inductor"
    ) -> None:
        estimator = estimator if estimator is not None else PerSample()
        if not isinstance(estimator, PerSample):
            raise TypeError(
                f"Compiled needs a PerSample, received {estimator!r}: other estimators draw anew "
                f"at every step or write into the parameters"
            )
        self.estimator = estimator
        self.backend = backend
        self._kinds: dict[Any, _Recording | None] = {}
        self._told: set[str] = set()

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        return self.estimator.forwards

    @property
    def power(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.power`."""
        return self.estimator.power

    def __repr__(self) -> str:
        return call(self, always=("estimator",))  # what is compiled says what the method is

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kinds": {}}

    def counters(self) -> Mapping[str, int]:
        """See `Estimator.counters`."""
        return self.estimator.counters()

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`; what is recorded is recorded again."""
        self.estimator.forget(counters)
        self._kinds = {}

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        return self._run("gradients", problem)

    def loss_gradient(self, problem: Problem) -> Gradients:
        """See `Estimator.loss_gradient`."""
        return self._run("loss_gradient", problem)

    def gradients_on_part(self, problem: Problem, inside: Tensor, outside: Tensor) -> Gradients:
        """See `Estimator.gradients_on_part`."""
        return self._run("gradients_on_part", problem, inside, outside)

    def _run(self, name: str, problem: Problem, *index: Tensor) -> Gradients:
        """The estimator's method of this name, recorded from the second time on."""
        own: Own = getattr(self.estimator, name)
        kind = self._kind(problem)
        if kind is None or not self._met(kind := (name, *map(len, index), *kind)):
            return own(problem, *index)
        recording = self._kinds[kind] or self._recorded(own, problem, *index)
        self._kinds[kind] = recording
        recording.uses += 1
        if recording.run is None:
            return own(problem, *index)
        if recording.uses & (recording.uses - 1):
            found = recording.run(problem, *index)
            self.estimator.heed(found)
            return found
        return self._checked(own, recording, problem, *index)

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; never compiled."""
        return self.estimator.trace(problem)

    def _kind(self, problem: Problem) -> tuple[Any, ...] | None:
        """What a recording depends on, or None where there can be none."""
        if get_current_dispatch_mode_stack():  # it wants to see operations, as a counter does
            return None
        if problem.size is None:
            self._tell("the closure takes no batch: use step(closure, *batch)")
            return None
        parameters = tuple((id(p), p.shape, p.dtype, p.device) for p in problem.parameters)
        modules = problem.model.modules() if problem.model is not None else ()
        device = problem.parameters[0].device.type
        tensors = [id(t) for t in _tensors(problem)]
        return (
            problem.closure,
            batches.signature(problem.batch),
            tuple(tensors.index(t) for t in tensors),  # one that is there twice
            parameters,
            tuple(problem.structured),
            tuple(m.training for m in modules),
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
            self.estimator.kind,
        )

    def _met(self, kind: Any) -> bool:
        """Whether this kind of step has been met before; if not, it has now."""
        if kind in self._kinds:
            return True
        if len(self._kinds) == KINDS:
            once = next((k for k, recording in self._kinds.items() if recording is None), None)
            if once is None:
                self._tell(f"batches have more than {KINDS} shapes")
                return False
            del self._kinds[once]
            self._tell(
                "the closure is another function at every step, or batches have ever new shapes: "
                "define it once, before the loop"
            )
        self._kinds[kind] = None
        return False

    def _recorded(self, own: Own, problem: Problem, *index: Tensor) -> _Recording:
        snapshot = Snapshot(problem)
        try:
            graph, form = _record(own, problem, *index)
            drawn = snapshot.torch_random_changed()
        except Exception as error:  # what stopped the recording did not stop the estimator
            self._tell(_line(error))
            return _Recording(None)
        finally:
            snapshot.restore()
        if drawn and isinstance(self.estimator.engine, FiniteDifference):
            self._tell(
                "the closure draws random numbers, twice with differences: use "
                "PerSample(DoubleBackward())"
            )
            return _Recording(None)
        compiled = graph
        if self.backend is not None:
            options: Any = {"options": OPTIONS} if self.backend == "inductor" else {}
            compiled = torch.compile(graph, backend=self.backend, dynamic=False, **options)

        def run(problem: Problem, *index: Tensor) -> Gradients:
            with torch.no_grad():
                return form(compiled(problem.parameters, _tensors(problem), list(index)))

        return _Recording(run)

    def _checked(
        self, own: Own, recording: _Recording, problem: Problem, *index: Tensor
    ) -> Gradients:
        """The estimator's own result; a recording that differs from it is not used again."""
        replay = Replay(lambda: own(problem, *index), problem)
        truth = replay()
        assert recording.run is not None
        run = recording.run
        try:
            found = replay.rerun(lambda: run(problem, *index))
        except Exception as error:  # no compiler, or an operation that the backend lacks
            reason = _line(error)
        else:
            if _agree(found, truth, structure=recording.uses == 1):
                return truth
            reason = (
                "the closure gives other numbers than at its recording: what changes from step to "
                "step belongs into its batch"
            )
        self._tell(reason)
        recording.run = None
        return truth

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(f"Compiled runs a step uncompiled: {reason}", stacklevel=2)


def _record(
    own: Own, problem: Problem, *index: Tensor
) -> tuple[GraphModule, Callable[[list[Tensor]], Gradients]]:
    """The operations of `own`, and what puts their results into form."""
    form: list[Callable[[list[Tensor]], Gradients]] = []

    # The recorder knows its inputs by identity, so the closure may read them wherever they are.
    def measured(
        parameters: list[Tensor], tensors: list[Tensor], index: list[Tensor]
    ) -> list[Tensor]:
        found = own(replace(problem, repeatable=True), *index)
        # A number of samples is the recording's own; a sum of weights is another at every step.
        weight = found.weight if isinstance(found.weight, Tensor) else None
        scalars = [[found.loss], [found.trace], [weight], [found.error]]
        parts = [*scalars, found.structure or [], found.gradient]
        there = [[t is not None for t in part] for part in parts]

        def formed(results: list[Tensor]) -> Gradients:
            rest = iter(results)
            (loss,), (trace,), (weight,), (error,), structure, gradient = (
                [next(rest) if one else None for one in part] for part in there
            )
            assert loss is not None
            return Gradients(
                loss=loss,
                weight=found.weight if weight is None else weight,
                gradient=gradient,
                structure=None if found.structure is None else structure,  # pyright: ignore
                trace=trace,
                error=error,
            )

        form.append(formed)
        return [t for part in parts for t in part if t is not None]

    versions = _versions(problem)
    graph = make_fx(measured)(problem.parameters, _tensors(problem), list(index))
    if _versions(problem) != versions:
        raise RuntimeError("the closure writes into buffers or into its batch")
    return graph, form[-1]


def _tensors(problem: Problem) -> list[Tensor]:
    return list(batches.tensors(problem.batch))


def _versions(problem: Problem) -> list[tuple[int, int]]:
    """Which tensors a closure must leave alone, and how often they have been written."""
    buffers = problem.model.buffers() if problem.model is not None else ()
    tensors = (*problem.parameters, *buffers, *batches.tensors(problem.batch))
    return [(id(t), t._version) for t in tensors]


def _agree(found: Gradients, truth: Gradients, *, structure: bool) -> bool:
    """Whether two results differ by rounding alone; what is not finite is not compared.

    Args:
        structure: whether h is compared, too: later in training differences may be all rounding.
    """

    def close(a: Sequence[Tensor | None] | None, b: Sequence[Tensor | None] | None) -> bool:
        a, b = ([t for t in part or () if t is not None] for part in (a, b))
        if not b:
            return not a
        allowed = torch.finfo(b[0].dtype).eps ** 0.25
        apart, length = squared_norm(plus(a, b, -1.0)).sqrt(), squared_norm(b).sqrt()
        return bool(apart <= allowed * length + TINY) or not bool(length.isfinite())

    return (
        close([found.loss], [truth.loss])
        and close([found.trace], [truth.trace])
        and close(found.gradient, truth.gradient)
        and (not structure or close(found.structure, truth.structure))
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
