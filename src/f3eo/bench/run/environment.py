"""What a result was measured with: the versions of the code and the machine."""

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

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


@lru_cache
def versions() -> dict[str, str]:
    """Version of Python, of each package that can change a result, and of the source tree."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | ({"commit": commit} if (commit := _commit()) else {})


@lru_cache
def machine() -> dict[str, str | int]:
    """Processor, cores and system, and the threads torch may use in this process."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
    }


def _commit() -> str:
    """The commit of the source tree, with "+" if it was changed since; empty outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _processor() -> str:
    """The model name Linux gives, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
