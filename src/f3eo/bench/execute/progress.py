"""The terminal display of running runs."""

import math
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from f3eo.bench.execute.pool import Update
from f3eo.bench.methods import colour, label
from f3eo.bench.run.row import Row, equal
from f3eo.bench.run.run import Run
from f3eo.bench.statistics.student import interval


class Display:
    """A live table of results and a progress bar per worker; plain lines without a terminal.

    Args:
        console: where to display.
        runs: all runs of the comparison.
        rows: rows of earlier executions.
    """

    def __init__(self, console: Console, runs: Sequence[Run], rows: Sequence[Row]) -> None:
        self._console = console
        self._rows = list(rows)
        self._total = len(runs)
        self._contests = list(dict.fromkeys((run.task, run.equal) for run in runs))
        self._methods = list(dict.fromkeys((run.method, run.variant) for run in runs))
        self._bars = Progress(
            TextColumn("{task.description}", style="dim"),
            BarColumn(bar_width=40, complete_style="#c2185b", finished_style="#c2185b"),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        done = sum(row["key"] in {run.key for run in runs} for row in rows)
        self._all = self._bars.add_task("all runs", total=len(runs), completed=done)
        self._workers: dict[int, TaskID] = {}
        self._shares: dict[int, float] = {}
        self._done = done
        self._tests = all(run.split == "test" for run in runs)
        self._live = Live(console=console, refresh_per_second=6, get_renderable=self._picture)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for bar in (self._all, *self._workers.values()):
            self._bars.update(bar, visible=False)
        if self._live.is_started:
            self._live.stop()
        else:
            self._console.print(self._table())

    def show(self, update: Update) -> None:
        """Display an update."""
        if update.worker not in self._workers:
            self._workers[update.worker] = self._bars.add_task("", total=1.0)
        run = update.run
        self._shares[update.worker] = 0.0 if update.row else update.share
        if update.row:
            self._rows.append(update.row)
            self._done += 1
            if not self._console.is_terminal:
                self._console.print(_line(update.row, self._done, self._total))
        self._bars.update(
            self._workers[update.worker],
            description=f"{run.task}, {_name(run.method, run.variant)}, seed {run.seed}",
            completed=update.share,
        )
        self._bars.update(self._all, completed=self._done + sum(self._shares.values()))

    def _picture(self) -> Group:
        return Group(self._table(), self._bars)

    def _table(self) -> Table:
        """Accuracy in %; a row per method, a column per task and kind of budget."""
        title = f"{'Test' if self._tests else 'Validation'} accuracy, %"
        table = Table(box=None, padding=(0, 2), title=title, title_justify="left")
        table.add_column("", overflow="fold")
        for task, kind in self._contests:
            table.add_column(
                task if kind == "cost" else f"{task}, equal time", justify="right", overflow="fold"
            )
        for method, variant in self._methods:
            cells = [self._cell(task, kind, method, variant) for task, kind in self._contests]
            table.add_row(Text(_name(method, variant), style=colour(method)), *cells)
        return table

    def _cell(self, task: str, kind: str, *who: str) -> Text:
        rows = [
            row
            for row in self._rows
            if (row["task"], equal(row), row["method"], row.get("variant", ""))
            == (task, kind, *who)
        ]
        values = [100 * row["final"]["test_accuracy"] for row in rows if row["final"]]
        text = Text("–" if not values else "", style="dim" if not values else "")
        if values:
            mean, half, n = interval(values)
            width = "" if math.isnan(half) else f" ± {half:.1f}"
            text.append(f"{mean:.1f}{width}").append(f"  n={n}", style="dim")
        if lost := len(rows) - len(values):
            text.append(f"  {lost} failed", style="red")
        return text


def _name(method: str, variant: str) -> str:
    return f"{label(method)}, {variant}" if variant else label(method)


def _line(row: Row, done: int, total: int) -> Text:
    """One line about a finished run."""
    who = _name(row["method"], row["variant"])
    text = Text(f"{done:>4}/{total}  {row['task']}  {who}  seed {row['seed']}  ")
    if row["final"]:
        final = row["final"]
        return text.append(f"{100 * final['test_accuracy']:.1f} %  {final['seconds']:.1f} s")
    return text.append(row["error"], style="red")
