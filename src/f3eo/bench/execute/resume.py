"""Execution of the runs that a store has no row of; every row is stored when its run ends."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from f3eo.bench.execute.kind import RUNS, Kind, Runnable
from f3eo.bench.execute.pool import execute
from f3eo.bench.execute.progress import Display
from f3eo.bench.execute.store import Store
from f3eo.bench.run.row import Row


@dataclass(frozen=True)
class Carried:
    """Result of an execution.

    Attributes:
        rows: rows in the store that are compatible with the runs.
        trained: number of runs that this call executed.
        missing: number of runs without a row.
        failure: the error of the last run if all runs failed, else None.
    """

    rows: list[Row]
    trained: int
    missing: int
    failure: str | None


def carry_out(
    runs: Sequence[Runnable],
    store: Store,
    console: Console,
    *,
    workers: int,
    command: str,
    deadline: float = math.inf,
    keep: Path | None = None,
    kind: Kind = RUNS,
) -> Carried:
    """Execute the runs that the store has no row of.

    Runs that finished or diverged are not repeated; runs that failed with an error are. Ctrl-C ends
    the execution; rows of finished runs are kept.

    Args:
        runs: the runs, in the order in which they are started.
        store: holds the rows.
        console: where progress is displayed.
        workers: number of processes.
        command: the command line, which rows record.
        deadline, keep: see `pool.execute`; default never and nothing.
        kind: of the runs; default those of comparisons and studies.
    """

    def arrange() -> tuple[list[Row], int]:
        return store.arrange(
            lambda row: is_compatible(row, runs, kind), lambda row: is_requested(row, runs, kind)
        )

    rows, aside = arrange()
    known = {row["key"]: row for row in rows}
    missing = [
        run for run in runs if known.get(run.key, {"status": "failed"})["status"] == "failed"
    ]
    _report(console, store, aside, len(runs), len(missing))
    if missing:
        rest = [row for row in rows if row["status"] != "failed"]
        try:
            with (
                Display(console, runs, rest, kind.view(runs)) as display,
                closing(execute(missing, workers, deadline, keep, kind)) as updates,
            ):
                for update in updates:
                    if update.row:
                        store.append(update.row | {"command": command})
                    display.show(update)
        except KeyboardInterrupt:
            pass
    rows, _ = arrange()  # the row of a repeated run replaces its earlier one
    # Count what is in the store, as Ctrl-C may arrive between append and show.
    now = {row["key"]: row for row in rows}
    trained = sum(now.get(run.key) != known.get(run.key) for run in missing)
    ends = [now[run.key] for run in runs if run.key in now]
    errors = [str(row["error"]) for row in ends if row["status"] == "failed"]
    failure = errors[-1] if errors and len(errors) == len(runs) else None
    return Carried(rows, trained, len(missing) - trained, failure)


def is_compatible(row: Row, runs: Sequence[Runnable], kind: Kind = RUNS) -> bool:
    """Whether a row may be reported together with these runs.

    Rows of other contests (tasks and what is held equal) are always compatible; otherwise the
    setting must equal that of the runs, and options and price must match a run of the same
    contender (method and variant), if there is one.
    """
    here = [run for run in runs if run.contest == kind.contest(row)]
    own = ("options", "price")
    setting = {name: value for name, value in row["config"].items() if name not in own}
    if any(run.setting != setting for run in here):
        return False
    same = _same(row, here, kind)
    return not same or is_requested(row, same, kind)


def is_requested(row: Row, runs: Sequence[Runnable], kind: Kind = RUNS) -> bool:
    """Whether a run has the row's contest, contender and configuration."""
    return any(run.config == row["config"] for run in _same(row, runs, kind))


def _same(row: Row, runs: Sequence[Runnable], kind: Kind) -> list[Runnable]:
    identity = kind.contest(row), kind.contender(row)
    return [run for run in runs if (run.contest, run.contender) == identity]


def _report(console: Console, store: Store, aside: int, total: int, missing: int) -> None:
    """Print what was moved in the folder, and how many runs are done."""
    if store.moved:
        Console(stderr=True, markup=False, emoji=False).print(
            f"Moved {store.moved} damaged line(s) to {store.damaged}; a process that is killed "
            "while writing leaves them. Runs without a row are repeated.",
            soft_wrap=True,
            highlight=False,
        )
    if aside:
        console.print(
            f"{aside} row(s) of another configuration moved to {store.earlier}; "
            "they come back with that configuration. Use another --name to keep both."
        )
    if missing < total:
        console.print(f"{total - missing} of {total} runs are done already and are not repeated.")
