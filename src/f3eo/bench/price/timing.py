"""Interleaved timing: every round runs every method once, in random order."""

import ctypes
import gc
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import SupportsFloat

import torch

from f3eo.bench.run.place import PROCESSOR, Place

Clock = Callable[[], float]
"""Seconds from some origin."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


@dataclass(frozen=True)
class Runner:
    """A step to time.

    Args:
        step: takes one step and returns its loss.
        steps: steps in a round; the round counts their mean; default 1.
    """

    step: Callable[[], SupportsFloat]
    steps: int = 1


@dataclass
class Timing:
    """Results so far, of complete rounds only, so that an interruption loses one round at most.

    Args:
        rounds: seconds per step, by name, for every counted round.
        errors: by name, the error after which that runner is left out.
    """

    rounds: list[dict[str, float]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """How many rounds are taken.

    Args:
        fewest: rounds that are taken whatever time they need.
        most: rounds after which timing ends; default no bound.
        seconds: time after which timing ends if the fewest rounds are done; default no bound.
    """

    fewest: int
    most: float = inf
    seconds: float = inf

    def is_enough(self, rounds: int, seconds: float) -> bool:
        """Whether timing ends after this many rounds and seconds."""
        return rounds >= self.most or (rounds >= self.fewest and seconds >= self.seconds)


def time_rounds(
    runners: Mapping[str, Runner],
    timing: Timing,
    effort: Effort,
    *,
    generator: random.Random,
    clock: Clock,
    begin: float,
    tell: Callable[[int, float], object] = lambda rounds, seconds: None,
) -> None:
    """Time rounds into `timing` until they are enough.

    Args:
        runners, timing, generator, clock: see `interleave`.
        effort: when they are enough.
        begin: time on `time.monotonic` from which seconds count.
        tell: called after each round with rounds and seconds so far; default nothing.
    """
    with closing(interleave(runners, timing, generator=generator, clock=clock)) as counts:
        for rounds in counts:
            seconds = time.monotonic() - begin
            tell(rounds, seconds)
            if effort.is_enough(rounds, seconds):
                break


def interleave(
    runners: Mapping[str, Runner],
    timing: Timing,
    *,
    generator: random.Random,
    warmup: int = 2,
    clock: Clock = time.perf_counter,
) -> Generator[int]:
    """Time one round after the other into `timing`, as long as the caller iterates.

    Other programs slow down measurements that are near in time alike, so methods are compared
    within a round. The order within a round is random, so that no method always follows the same
    one. Garbage is collected between measurements, never within.

    Args:
        runners: by name.
        timing: receives rounds and errors.
        generator: draws the order.
        warmup: rounds that do not count; default 2.
        clock: gives the time; see `clock_for`.

    Yields:
        The number of counted rounds, after each round, warm-up included. Ends when every runner
        has failed.
    """
    with _undisturbed():
        for number in range(-warmup, 1_000_000_000):
            order = [name for name in runners if name not in timing.errors]
            if not order:
                return
            generator.shuffle(order)
            seconds: dict[str, float] = {}
            for name in order:
                try:
                    seconds[name] = _seconds(runners[name], clock)
                except Exception as error:
                    timing.errors[name] = f"{type(error).__name__}: {error}"
            if number >= 0:
                timing.rounds.append(seconds)
            elif number == -1:
                gc.freeze()
            yield len(timing.rounds)


def _seconds(runner: Runner, clock: Clock) -> float:
    """Seconds per step of one measurement.

    Raises:
        ArithmeticError: the loss is not finite, so the step may have done less work than usual.
    """
    gc.collect()
    begin = clock()
    for _ in range(runner.steps):
        loss = runner.step()
    seconds = (clock() - begin) / runner.steps
    if not isfinite(float(loss)):
        raise ArithmeticError(f"the loss became {float(loss)}")
    return seconds


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without automatic garbage collection, and with freed memory kept by the process."""
    enabled = gc.isenabled()
    gc.disable()
    _keep_memory()
    gc.collect()
    gc.freeze()  # collections between measurements then scan new objects only
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def clock_for(threads: int, place: Place = PROCESSOR) -> Clock:
    """The processor time of this process for one thread, the wall time for several or for a GPU.

    Processor time excludes waiting for the processor on a busy machine, but adds up over threads.
    The wall time is read once all work on the GPU is done.
    """
    if place.device != "cpu":
        return place.clock
    return time.process_time if threads == 1 else time.perf_counter


def _keep_memory() -> None:
    """Make glibc keep freed memory for good, so that no step pays for new pages.

    By default glibc returns large blocks to the system after each step, or keeps them, depending on
    the largest block that any method has freed: the plain gradient of a ResNet then takes a quarter
    longer alone than beside other methods. No effect with other C libraries.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run torch with this many threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
