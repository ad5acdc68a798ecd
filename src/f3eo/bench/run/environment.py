"""The environment of a result: versions of the code, and the machine."""

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from f3eo.bench.run.place import PROCESSOR, Place

PACKAGES = (
    "f3eo",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "mnist1d",
    "pytorch_optimizer",
    "heavyball",
    "ivon-opt",
    "schedulefree",
)


def environment(place: Place = PROCESSOR) -> dict[str, dict[str, Any]]:
    """The entries `versions` and `machine` of a row; `place` is by default the processor."""
    return {"versions": versions(), "machine": machine(place)}


@lru_cache
def versions() -> dict[str, str]:
    """Versions of Python and of each package that can change a result, and the commit."""
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = "not installed"
    return known | ({"commit": commit} if (commit := _commit()) else {})


def machine(place: Place = PROCESSOR) -> dict[str, str | int]:
    """Device, processor, cores, system, and the number of torch's threads in this process."""
    return {
        "device": place.name,
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
    }


def _commit() -> str:
    """The commit of the source tree, with "+" if it has changes; empty outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@lru_cache
def _processor() -> str:
    """The processor's model name on Linux, elsewhere what `platform` knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
