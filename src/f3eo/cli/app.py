"""Parts shared by all commands: the application, its output and its messages."""

import io
import shlex
import sys
from collections import Counter
from typing import Annotated, Any

import tyro
from rich.console import Console, RenderableType
from rich.status import Status
from tyro.conf import arg

from f3eo.bench.run.place import Precision
from f3eo.bench.run.row import Row
from f3eo.cli.guard import FAILED, INTERRUPTED

ALL = "all"
"""The name that stands for every method."""
NO_FILE = "(default: no file)"
"""The default in the help of an output file."""

Device = Annotated[
    str,
    arg(
        metavar="cpu|cuda|auto",
        help="Device of models and data; cuda:N is the N-th GPU, auto the GPU where there is one.",
    ),
]
"""The option --device of every command that trains."""
InPrecision = Annotated[
    Precision,
    arg(help="Arithmetic of the model in training: bf16 is torch.autocast to bfloat16."),
]
"""The option --precision."""

app = tyro.extras.SubcommandApp()


class Output(Console):
    """Standard output without markup; a closed pipe raises BrokenPipeError."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """A spinner with a message; without a terminal nothing is written."""
        if self.is_terminal:
            return super().status(status, **how)
        return Console(file=io.StringIO()).status(status, **how)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, which `guarded` reports."""
        raise BrokenPipeError


def tell(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr)


def typed() -> str:
    """The command line as a shell command, ready to be repeated."""
    return shlex.join(["f3eo", *sys.argv[1:]]).encode(errors="backslashreplace").decode()


def tell_failures(
    console: Console, rows: list[Row], place: str = "task", who: str = "method"
) -> None:
    """Print every error with its number of runs, by task and method.

    Args:
        console: standard output.
        rows: of all runs.
        place, who: entries of a row that name its task and its method.
    """
    lost = [row for row in rows if row["status"] != "finished"]
    counts = Counter((row[place], row[who], row["error"]) for row in lost)
    for (task, method, error), count in counts.items():
        console.print(f"{task}, {method}: {count} failed: {error}", style="red")


def tell_end(console: Console, missing: int, failure: str | None) -> int:
    """Print how to resume if runs are missing, or the error if every run failed.

    Args:
        console: standard output.
        missing: number of runs left to do.
        failure: the last error if every run failed, else None.

    Returns:
        The exit code.
    """
    if missing:
        console.print(
            f"Interrupted with {missing} runs to go. Finished runs are kept; "
            "to resume, give the same command again:",
        )
        console.print(f"  {typed()}", soft_wrap=True)
        return INTERRUPTED
    if failure is not None:
        tell(f"Error: every run failed: {' '.join(failure.splitlines())}")
        return FAILED
    return 0
