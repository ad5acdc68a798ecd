"""Peak memory of a method on a model, measured in a process of its own."""

import os
import subprocess
import sys

FLOOR = 8 * 2**20
"""Bytes of growth below which a ratio would say more about allocators than about methods."""

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""With this glibc gives every block above 64 KiB back at once, so that the resident set follows the
tensors alive, not the blocks kept for later."""


def measured(model: str, method: str, threads: int) -> int:
    """Bytes that steps need beside model, data and a forward pass; see `footprint`.

    Args:
        model, method: names.
        threads: for torch.

    Raises:
        RuntimeError: the process failed; with its last words.
    """
    words = ["-m", "f3eo.bench.price.footprint", model, method, str(threads)]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode < 0:
        raise RuntimeError(f"the process was ended by signal {-done.returncode}: out of memory?")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")
    return int(done.stdout)


def ratio(own: int | None, gradient: int | None) -> float | None:
    """Memory over that of a plain gradient; None if unknown, or where the latter is below FLOOR."""
    if own is None or gradient is None or gradient < FLOOR:
        return None
    return own / gradient
