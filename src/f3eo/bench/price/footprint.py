"""Peak memory of a variant's steps; a program that runs in a fresh process.

The result is the growth of the peak resident set over the resident set after model and data are
made and one forward pass has run without gradients. Three contributions are excluded:

- code loaded or compiled on first use: a second model takes steps on two samples before;
- compilation of a step and its first comparisons with the uncompiled step: done before;
- freed memory that the C library keeps: see `memory.ENVIRONMENT`.
"""

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from f3eo.bench.models import MODELS, Model
from f3eo.bench.price.variants import VARIANTS, Variant
from f3eo.bench.price.work import start

ROUNDS = 2
"""Rounds that are measured; gradients of the first are still allocated in the second."""


def peak_growth(action: Callable[[], object]) -> int:
    """Bytes by which the peak resident set during `action` exceeds the resident set before.

    Systems other than Linux cannot reset the peak: the result is then a lower bound.
    """
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # peak := resident; see man 5 proc
    before = _peak()
    action()
    return _peak() - before


def footprint(model: Model, method: Variant) -> int:
    """Bytes that steps of the variant need beside model, data and a forward pass."""
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
    """Peak resident set so far, in bytes.

    On Linux not ru_maxrss, which a process inherits from its parent.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print the bytes; arguments are MODEL METHOD THREADS."""
    model, method, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(footprint(MODELS[model], VARIANTS[method]))


if __name__ == "__main__":
    main()
