"""Carry out what is not there yet, and keep every row from the moment it is done."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console

from f3eo.bench.execute.pool import execute
from f3eo.bench.execute.progress import Display
from f3eo.bench.execute.store import Store
from f3eo.bench.run.row import Row, equal
from f3eo.bench.run.run import Run


@dataclass(frozen=True)
class Carried:
    """What came of it.

    Attributes:
        rows: those in the store that agree with the runs.
        trained: runs carried out just now.
        missing: runs that are still to be done.
        failure: the error of the last run if all of them failed, else None.
    """

    rows: list[Row]
    trained: int
    missing: int
    failure: str | None


def carry_out(
    runs: Sequence[Run],
    store: Store,
    console: Console,
    *,
    workers: int,
    command: str,
    deadline: float = math.inf,
) -> Carried:
    """Carry out the runs whose rows are not in the store.

    Runs that finished or diverged are not repeated; runs that failed for another reason are tried
    again. Ctrl-C ends it early and in order: every finished run is kept.

    Args:
        runs: in this order.
        store: where the rows are.
        console: where to show what is going on.
        workers: processes.
        command: what was typed, for the record.
        deadline: see `pool.execute`.
    """

    def arranged() -> tuple[list[Row], int]:
        return store.arrange(lambda row: agrees(row, runs), lambda row: asked(row, runs))

    rows, aside = arranged()
    known = {row["key"]: row for row in rows}
    missing = [
        run for run in runs if known.get(run.key, {"status": "failed"})["status"] == "failed"
    ]
    _tell(console, store, aside, len(runs), len(missing))
    if missing:
        rest = [row for row in rows if row["status"] != "failed"]
        try:
            with (
                Display(console, runs, rest) as display,
                closing(execute(missing, workers, deadline)) as updates,
            ):
                for update in updates:
                    if update.row:
                        store.append(update.row | {"command": command})
                    display.show(update)
        except KeyboardInterrupt:
            pass
    rows, _ = arranged()  # a second try replaces the first
    # What is in the store counts: Ctrl-C may come between two lines above.
    now = {row["key"]: row for row in rows}
    trained = sum(now.get(run.key) != known.get(run.key) for run in missing)
    ends = [now[run.key] for run in runs if run.key in now]
    errors = [str(row["error"]) for row in ends if row["status"] == "failed"]
    failure = errors[-1] if errors and len(errors) == len(runs) else None
    return Carried(rows, trained, len(missing) - trained, failure)


def agrees(row: Row, runs: Sequence[Run]) -> bool:
    """Whether a row may stand beside these runs.

    On a task the runs do not touch any row may; else its budget and the like must be equal to
    theirs, and its options and price, too, to those of one of the runs that have its method and
    variant. Runs of equal cost and runs of equal time do not touch each other.
    """
    here = [run for run in runs if (run.task, run.equal) == (row["task"], equal(row))]
    own = ("options", "price")
    setting = {name: value for name, value in row["config"].items() if name not in own}
    if any(run.setting != setting for run in here):
        return False
    same = _same(row, here)
    return not same or asked(row, same)


def asked(row: Row, runs: Sequence[Run]) -> bool:
    """Whether one of the runs has the row's method, variant and configuration."""
    return any(run.config == row["config"] for run in _same(row, runs))


def _same(row: Row, runs: Sequence[Run]) -> list[Run]:
    place = row["task"], equal(row), row["method"], row.get("variant", "")
    return [run for run in runs if (run.task, run.equal, run.method, run.variant) == place]


def _tell(console: Console, store: Store, aside: int, total: int, missing: int) -> None:
    """Say what was found in the folder, where it matters."""
    if store.moved:
        Console(stderr=True, markup=False, emoji=False).print(
            f"Moved {store.moved} damaged line(s) to {store.damaged}, as a run leaves that is "
            "killed while it is written down. Runs without a row are repeated.",
            soft_wrap=True,
            highlight=False,
        )
    if aside:
        console.print(
            f"{aside} row(s) of another configuration moved to {store.earlier}; "
            "they come back with their configuration. Another --name keeps both apart."
        )
    if missing < total:
        console.print(f"{total - missing} of {total} runs are there already and are not repeated.")
