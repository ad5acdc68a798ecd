"""Interleaved timing: every round runs every method once, in random order."""

import ctypes
import gc
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import SupportsFloat

import torch

Clock = Callable[[], float]
"""Seconds from some origin."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


@dataclass(frozen=True)
class Runner:
    """Something to time.

    Args:
        step: takes one step and returns its loss.
        steps: how many make up a round; their mean counts.
    """

    step: Callable[[], SupportsFloat]
    steps: int = 1


@dataclass
class Timing:
    """What was measured so far; complete rounds alone, so that it may be cut short at any time.

    Args:
        rounds: seconds per step, by name, for every counted round.
        errors: what went wrong, by name; from then on that runner is left out.
    """

    rounds: list[dict[str, float]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def interleave(
    runners: Mapping[str, Runner],
    timing: Timing,
    *,
    generator: random.Random,
    warmup: int = 2,
    clock: Clock = time.perf_counter,
) -> Generator[int]:
    """Time round after round into `timing`, for as long as it is iterated.

    A disturbance from outside hits neighbours in time, so methods are compared within a round; in
    random order, so that none always follows the same one. Garbage is collected between the
    measurements, never within.

    Args:
        runners: what to time, by name.
        timing: where rounds and errors go.
        generator: draws the order.
        warmup: rounds that do not count.
        clock: gives the time; see `clock_for`.

    Yields:
        The number of rounds counted so far, after each, warm-up ones included. Ends where every
        runner has failed.
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
        ArithmeticError: a loss that is not finite: the step then did other work than usual.
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
    """No garbage collection but ours, and no memory from the system but once."""
    enabled = gc.isenabled()
    gc.disable()
    _keep_memory()
    gc.collect()
    gc.freeze()  # collections between measurements then look at new objects alone
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def clock_for(threads: int) -> Clock:
    """The time of the processor spent on this process if it works with one thread, else the wall's.

    On a busy machine a step now and then waits for its turn longer than it takes; the processor's
    time leaves that out, but adds up over threads.
    """
    return time.process_time if threads == 1 else time.perf_counter


def _keep_memory() -> None:
    """Have glibc keep what is freed, for good, so that no method pays for fresh pages.

    By default it hands large blocks back after each step, or not, depending on the largest that any
    method ever freed: the plain gradient of a ResNet then takes a quarter longer alone than in
    company. Other C libraries are left as they are.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch works with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
