"""Peak memory of a variant's steps; a program that runs in a fresh process.

On the processor the result is the growth of the peak resident set over the resident set after model
and data are made and one forward pass has run without gradients. Three contributions are excluded:

- code loaded or compiled on first use: a second model takes steps on two samples before;
- compilation of a step and its first comparisons with the uncompiled step: done before;
- freed memory that the C library keeps: see `memory.ENVIRONMENT`.

On a GPU it is the same growth of the memory that torch has allocated there.
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
from f3eo.bench.run.place import PROCESSOR, Place, resolved

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


def allocated_growth(action: Callable[[], object], device: str) -> int:
    """Bytes by which torch's peak on a GPU during `action` exceeds what it holds before."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    action()
    return torch.cuda.max_memory_allocated(device) - before


def footprint(model: Model, method: Variant, place: Place = PROCESSOR) -> int:
    """Bytes that steps of the variant need beside model, data and a forward pass."""
    small = start(model, method, batch=2, place=place)
    _steps(small.step, method.steps)
    del small
    work = start(model, method, model.batch, place)
    work.forward()
    work.prepare(method.prepared * method.steps)

    def measured() -> None:
        _steps(work.step, ROUNDS * method.steps)

    on_gpu = place.device != "cpu"
    return allocated_growth(measured, place.device) if on_gpu else peak_growth(measured)


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
    """Print the bytes; arguments are MODEL METHOD THREADS DEVICE PRECISION."""
    model, method, threads, *where = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(footprint(MODELS[model], VARIANTS[method], resolved(*where)))


if __name__ == "__main__":
    main()
