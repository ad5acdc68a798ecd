"""Scalars as lines of JSON, which survive the end of the process."""

import json
import os
from math import isfinite
from pathlib import Path
from typing import Any

from f3eo.monitor.sinks.sink import check_open


class JsonLines:
    """Appends one line a report: {"step": 50, "f3eo/loss": 0.31, …}.

    A line is one write to the file, flushed to the operating system: a process that is killed
    leaves whole lines, and at most the last one broken (`read_lines` drops it). Only a crash of the
    machine loses more. What is NaN or infinite becomes null, since JSON has neither.

    Lines that are there stay; a last one that was broken off is removed first. A run that goes on
    from an earlier state writes its steps again: of two lines with one step the later counts.

    Args:
        path: the file; its folder is made if missing.

    Raises:
        OSError: the file cannot be written.
        ValueError: the sink is closed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+", buffering=0)
        _remove_broken_line(self._file)

    def __call__(self, step: int, scalars: dict[str, float]) -> None:
        """Append a line."""
        check_open(self, closed=self._file.closed)
        finite = {name: value if isfinite(value) else None for name, value in scalars.items()}
        line = json.dumps({"step": step, **finite}, ensure_ascii=False, allow_nan=False) + "\n"
        before = os.fstat(self._file.fileno()).st_size
        data = line.encode()
        if self._file.write(data) != len(data):
            self._file.truncate(before)
            raise OSError(f"{self.path}: the disk is full, the line of step {step} is not written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a file that `JsonLines` wrote, in order; a broken last one is dropped.

    Args:
        path: the file.

    Returns:
        {"step": int, name: float or None, …} for every line.

    Raises:
        ValueError: another line is no JSON object; with its number.
    """
    *whole, _ = Path(path).read_bytes().split(b"\n")  # behind the last line break: nothing, or part
    found = []
    for number, line in enumerate(whole, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "step" not in row:
            raise ValueError(
                f"line {number} of {path} is none that JsonLines writes: {line[:80]!r}"
            )
        found.append(row)
    return found


def _remove_broken_line(file: Any) -> None:
    """Cut the file behind its last line break."""
    end = file.seek(0, os.SEEK_END)
    position, step = end, 4096
    while position > 0:
        start = max(0, position - step)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position < end:
        file.truncate(position)
