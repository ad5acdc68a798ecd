"""A program in a process of its own that is ended by kill -9, with all that it has started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 240
"""Seconds after which a program that neither ends nor comes to a place is an error."""


def start(*words, log: Path, **environment):
    """Start Python on these words; what it prints is added to a file."""
    paths = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=os.environ | paths | environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def until(reached, *processes, log: Path):
    """Wait for what a program does; an error if it ends before."""
    end = time.monotonic() + LONGEST
    while not reached():
        if any(process.poll() is not None for process in processes) or time.monotonic() > end:
            for process in processes:
                kill(process)
            assert reached(), log.read_text(errors="replace")[-3000:]
        time.sleep(0.005)


def kill(process):
    """Kill −9, the process alone."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def finished(*processes, log: Path):
    """Wait for the end, which has to be a good one."""
    try:
        codes = [process.wait(timeout=LONGEST) for process in processes]
    finally:
        for process in processes:
            kill(process)
    assert codes == [0] * len(codes), log.read_text(errors="replace")[-3000:]


def alone_in(session):
    """Whether nothing of a session is left: what a killed process has started has ended, too."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return True
    return False
