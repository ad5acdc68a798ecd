"""Peak memory of a variant on a model, measured in a fresh process."""

import os
import subprocess
import sys

from f3eo.bench.run.place import PROCESSOR, Place

FLOOR = 8 * 2**20
"""Bytes; below this the plain gradient's memory is too small to give a meaningful ratio."""

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""With this, glibc returns every block above 64 KiB at once, so the resident set follows the live
tensors."""


def measure_memory(model: str, method: str, threads: int, place: Place = PROCESSOR) -> int:
    """Bytes that steps need beside model, data and a forward pass; see `footprint`.

    Args:
        model, method: names of the model and the variant.
        threads: number of torch's threads.
        place: device and precision; default the processor and float32.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    words = ["-m", "f3eo.bench.price.footprint", model, method, str(threads)]
    words += [place.device, place.precision]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode < 0:
        raise RuntimeError(f"the process was killed by signal {-done.returncode}: out of memory?")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")
    return int(done.stdout)


def ratio(own: int | None, gradient: int | None) -> float | None:
    """Memory over that of a plain gradient; None if unknown or if the latter is below FLOOR."""
    if own is None or gradient is None or gradient < FLOOR:
        return None
    return own / gradient
