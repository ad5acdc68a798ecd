"""The terminal display of running runs."""

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from f3eo.bench.execute.kind import Runnable
from f3eo.bench.execute.pool import Update
from f3eo.bench.execute.view import View
from f3eo.bench.run.row import Row


class Display:
    """A live table of results and a progress bar per worker; plain lines without a terminal.

    Args:
        console: where to display.
        runs: all runs of the comparison.
        rows: rows of earlier executions.
        view: what is shown of them.
    """

    def __init__(
        self, console: Console, runs: Sequence[Runnable], rows: Sequence[Row], view: View
    ) -> None:
        self._console = console
        self._rows = list(rows)
        self._total = len(runs)
        self._view = view
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
            self._console.print(self._view.table(self._rows))

    def show(self, update: Update) -> None:
        """Display an update."""
        if update.worker not in self._workers:
            self._workers[update.worker] = self._bars.add_task("", total=1.0)
        self._shares[update.worker] = 0.0 if update.row else update.share
        if update.row:
            self._rows.append(update.row)
            self._done += 1
            if not self._console.is_terminal:
                place = Text(f"{self._done:>4}/{self._total}  ")
                self._console.print(place.append(self._view.line(update.row)))
        self._bars.update(
            self._workers[update.worker],
            description=self._view.name(update.run),
            completed=update.share,
        )
        self._bars.update(self._all, completed=self._done + sum(self._shares.values()))

    def _picture(self) -> Group:
        return Group(self._view.table(self._rows), self._bars)
