"""What the commands share: the application they belong to, its output, and what was typed."""

import io
import shlex
import sys
from collections import Counter
from typing import Any

import tyro
from rich.console import Console, RenderableType
from rich.status import Status

from f3eo.bench.run.row import Row
from f3eo.cli.guard import FAILED, INTERRUPTED

ALL = "all"

app = tyro.extras.SubcommandApp()


class Output(Console):
    """Standard output: text is shown as it is, and a reader that went away is an error."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """What is going on, for eyes alone: without a terminal it could only fail."""
        if self.is_terminal:
            return super().status(status, **how)
        return Console(file=io.StringIO()).status(status, **how)

    def on_broken_pipe(self) -> None:
        """Let `guarded` say so."""
        raise BrokenPipeError


def tell(text: str) -> None:
    """A line on stderr, for what goes beside the results."""
    print(text, file=sys.stderr)


def typed() -> str:
    """What was typed, so that it can be typed again."""
    return shlex.join(["f3eo", *sys.argv[1:]]).encode(errors="backslashreplace").decode()


def tell_failures(console: Console, rows: list[Row]) -> None:
    """How often each error came up, by task and method."""
    lost = [row for row in rows if row["status"] != "finished"]
    counts = Counter((row["task"], row["method"], row["error"]) for row in lost)
    for (task, method, error), count in counts.items():
        console.print(f"{task}, {method}: {count} failed: {error}", style="red")


def tell_end(console: Console, missing: int, failure: str | None) -> int:
    """How to go on if runs are missing, and why if all failed; returns the exit code.

    Args:
        console: standard output.
        missing: runs that are still to be done.
        failure: the error, if all runs failed.
    """
    if missing:
        console.print(
            f"Interrupted with {missing} runs to go. Finished runs are kept; "
            "to go on, give the same command again:",
        )
        console.print(f"  {typed()}", soft_wrap=True)
        return INTERRUPTED
    if failure is not None:
        tell(f"Error: every run failed: {' '.join(failure.splitlines())}")
        return FAILED
    return 0
