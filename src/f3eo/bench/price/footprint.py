"""Peak memory of a method's steps; run as a program of its own, in a fresh process.

The figure is the growth of the peak resident set over what is resident once model and data are
there and one forward pass has run without gradients. Three things would blur it and are kept out:

- code that is loaded or compiled on first use: a throw-away model first takes steps on two samples;
- the compilation of a step, and the first comparisons with the uncompiled one: steps taken before;
- freed memory that the C library keeps for later: see `memory.ENVIRONMENT`.
"""

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from f3eo.bench.models import MODELS, Model
from f3eo.bench.price.methods import METHODS, Method
from f3eo.bench.price.work import start

ROUNDS = 2
"""Rounds of steps that are watched: gradients of the first are still there in the second."""


def peak_growth(action: Callable[[], object]) -> int:
    """Bytes by which the highest resident set during `action` exceeds the one before it.

    Where the peak cannot be reset (systems other than Linux), it counts from the highest so far
    and is a lower bound.
    """
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # peak := resident; see man 5 proc
    before = _peak()
    action()
    return _peak() - before


def footprint(model: Model, method: Method) -> int:
    """Bytes that steps of the method need beside model, data and a forward pass."""
    small = start(model, method, batch=2)
    _steps(small.step, method.steps)
    del small
    work = start(model, method, model.batch)
    work.forward()
    work.prepare(method.prepared * method.steps)
    return peak_growth(lambda: _steps(work.step, ROUNDS * method.steps))


def _steps(step: Callable[[], object], number: int) -> None:
    for _ in range(number):
        step()


def _peak() -> int:
    """Highest resident set so far, in bytes.

    Not ru_maxrss on Linux: a process inherits that of the one that started it.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """MODEL METHOD THREADS -> bytes, on standard output."""
    model, method, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(footprint(MODELS[model], METHODS[method]))


if __name__ == "__main__":
    main()
