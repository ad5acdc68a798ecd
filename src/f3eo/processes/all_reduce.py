"""The estimates of all processes of a group, summed by torch.distributed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import nan
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from f3eo.fisher import Gradients, Reduction
from f3eo.fisher.reduction import Place
from f3eo.processes.buckets import Sums
from f3eo.processes.facts import COUNTERS, TYPES, Facts, from_numbers, refusal
from f3eo.processes.norms import joined, packed
from f3eo.tensors import wide


class AllReduce(Reduction):
    """Sums over the processes of a group, wherever torch.distributed has more than one.

    Two exchanges make a step. First the processes gather some numbers each (`Facts`): W_r, and
    whether all of them can go on. Then a_r x_r with a_r = W_r/W, for x of L, ∇L, Tr(D F D) and, if
    measured, h and squares, is summed in flat buckets, all begun before the first is waited for.
    Every process ends with the same numbers, bit for bit. A tensor that some processes have, and
    others not, counts as zeros there. Norms of samples are gathered where a step is observed.

    An error on one process is raised on the others, too, as a RuntimeError that repeats it. Where
    a process is gone, torch.distributed raises when its connection breaks or the timeout of the
    group passes (`init_process_group(timeout=…)`). Nothing has moved then.

    Args:
        group: of processes; default all. One of a single process reduces nothing.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.bytes = 0
        """Bytes that the last reduction gave to exchanges, in one process."""
        self._started = False

    @property
    def alone(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Reduction.alone`."""
        if not dist.is_available() or not dist.is_initialized():
            return True
        return dist.get_world_size(self.group) <= 1

    def reduce(self, gradients: Gradients, place: Place) -> Gradients:
        """See `Reduction.reduce`.

        Raises:
            RuntimeError: another process has failed, or its step is another one.
            ValueError: no process has samples.
        """
        if self.alone:
            return gradients
        told = self._gathered(self._facts(gradients, place), place.device)
        self._refuse_failed(told)
        if why := refusal(told):
            raise _told(RuntimeError(why))
        self._started = True
        place.estimator.adopt(_largest(told, place))
        if not any([facts.samples for facts in told]):
            if place.part:
                return gradients
            raise ValueError(
                "the batches of all processes hold no samples: their mean loss is not defined; "
                "leave them out"
            )
        with _in_touch():
            return self._summed(gradients, place, told)

    def restart(self) -> None:
        """See `Reduction.restart`: the next step compares the parameters of all processes."""
        self._started = False

    def fail(self, error: Exception, place: Place) -> None:
        """See `Reduction.fail`."""
        if self.alone or getattr(error, "_is_told", False):
            return
        with suppress(RuntimeError):  # they are gone; what counts is the error itself
            self._messages(self._gathered(Facts(failed=True), place.device), error)

    def largest(self, number: float, place: Place) -> float:
        """See `Reduction.largest`."""
        return number if self.alone else max(self._numbers(number, place))

    def agree(self, number: float, place: Place, why: str) -> None:
        """See `Reduction.agree`."""
        if not self.alone and any([other != number for other in self._numbers(number, place)]):
            raise _told(RuntimeError(why))

    def _numbers(self, own: float, place: Place) -> list[float]:
        """One number of every process; none has failed."""
        told = self._gathered(Facts(start=own), place.device)
        self._refuse_failed(told)
        return [facts.start for facts in told]

    def _facts(self, gradients: Gradients, place: Place) -> Facts:
        weight, error = gradients.weight, gradients.error
        counted = not isinstance(weight, Tensor)
        trace = gradients.trace
        return Facts(
            step=place.step,
            part=place.part,
            parameters=len(place.parameters),
            entries=sum([p.numel() for p in place.parameters]),
            start=nan if self._started else digest(place.parameters),
            samples=not gradients.empty,
            counted=counted,
            weight=float(weight),
            factor=nan if gradients.empty else place.factor,
            uniform=place.uniform,
            structure=gradients.structure is not None,
            squares=gradients.squares is not None,
            norms=gradients.norms is not None,
            observed=place.observed,
            loss=-1 if gradients.empty else TYPES.index(gradients.loss.dtype),
            trace=-1 if trace is None else TYPES.index(trace.dtype),
            error=-1 if error is None else float(error),
            counters=tuple(place.estimator.counters().values())[:COUNTERS],
        )

    def _gathered(self, own: Facts, device: torch.device) -> list[Facts]:
        """The facts of all processes, in the order of their ranks."""
        count = dist.get_world_size(self.group)
        with _in_touch():
            return self._gather(own, count, device)

    def _gather(self, own: Facts, count: int, device: torch.device) -> list[Facts]:
        numbers = torch.tensor(own.numbers(), dtype=torch.float64, device=device)
        rows = [torch.empty_like(numbers) for _ in range(count)]
        dist.all_gather(rows, numbers, group=self.group)
        return [from_numbers(row) for row in torch.stack(rows).tolist()]

    def _refuse_failed(self, told: Sequence[Facts]) -> None:
        """Raise what another process has raised."""
        if any([facts.failed for facts in told]):
            said = self._messages(told, None)
            failed = [r for r, facts in enumerate(told) if facts.failed]
            raise _told(
                RuntimeError(
                    f"process {failed[0]} failed in this step, so that no process makes it: "
                    f"{said[failed[0]]}"
                )
            )

    def _messages(self, told: Sequence[Facts], error: Exception | None) -> list[Any]:
        """The error of every process in words; None where it has none."""
        messages: list[Any] = [None] * len(told)
        own = None if error is None else f"{type(error).__name__}: {error}"
        dist.all_gather_object(messages, own, group=self.group)
        if error is not None:
            _told(error)
        return messages

    @torch.no_grad()
    def _summed(self, own: Gradients, place: Place, told: Sequence[Facts]) -> Gradients:
        """Σ_r a_r x_r of everything that all processes with samples have measured."""
        total = sum([facts.weight for facts in told])
        share = float(own.weight) / total if total else nan
        present = [facts for facts in told if facts.samples]
        sums = Sums(self._start, 0.0 if own.empty else share)
        structured = place.structured
        gradient = sums.begin(own.gradient, place.parameters)
        structure = squares = None
        if all([facts.structure for facts in present]):
            none = [None] * len(structured)
            structure = sums.begin(own.structure or none, structured)
        if all([facts.squares for facts in present]):
            wider = [wide(p.detach()) for p in structured]
            squares = sums.begin(own.squares or [None] * len(wider), wider)
        scalars = torch.zeros(2, dtype=torch.float64, device=place.device)
        if not own.empty:
            scalars[0] = own.loss
            scalars[1] = 0 if own.trace is None else own.trace
        (scalars,) = sums.begin([scalars], [scalars])
        used = torch.tensor(
            [g is not None for g in own.gradient], dtype=torch.uint8, device=place.device
        )
        dist.all_reduce(used, dist.ReduceOp.MAX, group=self.group)
        sums.wait()
        self.bytes = sums.bytes + used.numel() + 8 * len(told[0].numbers())
        norms = None
        if all([facts.norms for facts in present]) and any([facts.observed for facts in told]):
            rows: list[Any] = [None] * len(told)
            sent = packed(own.norms, place.parameters)
            dist.all_gather_object(rows, sent, group=self.group)
            norms = joined(rows, place.parameters, place.device)
        traced = all([facts.trace >= 0 for facts in present])
        error = max([facts.error for facts in told])
        counted = all([facts.counted for facts in told])
        pairs = zip(gradient, used.tolist(), strict=True)
        return Gradients(
            loss=scalars[0].to(TYPES[int(max([facts.loss for facts in told]))]),
            weight=int(total) if counted else scalars.new_tensor(total),
            gradient=[g if is_used else None for g, is_used in pairs],
            structure=structure,
            trace=scalars[1].to(_type([facts.trace for facts in told])) if traced else None,
            error=scalars.new_tensor(error) if error >= 0 else None,
            norms=norms,
            squares=squares,
        )

    def _start(self, flat: Tensor) -> Any:
        return dist.all_reduce(flat, group=self.group, async_op=True)

    def __deepcopy__(self, memo: Any) -> "AllReduce":
        twin = AllReduce(self.group)  # a group cannot be copied, and is the same one
        twin._started = self._started
        return twin

    def __getstate__(self) -> dict[str, Any]:
        if self.group is not None:
            raise TypeError(
                "an optimizer with a process group of its own cannot be pickled: save "
                "optimizer.state_dict(), and build it with processes=group again"
            )
        return vars(self)


def _type(positions: Sequence[float]) -> torch.dtype:
    return TYPES[int(max(positions))]


@contextmanager
def _in_touch() -> Iterator[None]:
    """Context of an exchange; an error of torch.distributed gets words."""
    try:
        yield
    except RuntimeError as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise _told(
            RuntimeError(
                f"no sums with the other processes, one of which has died or did not call step() "
                f"within the timeout of its group; this step has moved nothing: {line}"
            )
        ) from error


def _told(error: Any) -> Any:
    """The error, marked as known to all processes, so that none is told twice."""
    error._is_told = True
    return error


def digest(tensors: Iterable[Tensor]) -> float:
    """Σ x + ‖x‖² of all entries in float64: another number where the tensors are others."""
    wider = [t.detach().double() for t in tensors]
    return sum([float(x.sum()) + float(x.square().sum()) for x in wider])


def _largest(told: Sequence[Facts], place: Place) -> dict[str, int]:
    """The largest count of any process, by name."""
    names = list(place.estimator.counters())[:COUNTERS]
    return {name: int(max([f.counters[i] for f in told])) for i, name in enumerate(names)}
