"""The accuracies of a comparison or a study, as its display shows them."""

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from f3eo.bench.execute.view import View
from f3eo.bench.methods import colour, label
from f3eo.bench.run.row import Row, equal
from f3eo.bench.run.run import Run
from f3eo.bench.statistics.student import interval


class Accuracies(View):
    """Accuracy in %; a row per method, a column per task and kind of budget.

    Args:
        runs: all runs of the execution.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._contests = list(dict.fromkeys(run.contest for run in runs))
        self._methods = list(dict.fromkeys(run.contender for run in runs))
        self._tests = all(run.split == "test" for run in runs)

    def table(self, rows: Sequence[Row]) -> Table:
        """See `View.table`."""
        title = f"{'Test' if self._tests else 'Validation'} accuracy, %"
        table = Table(box=None, padding=(0, 2), title=title, title_justify="left")
        table.add_column("", overflow="fold")
        for task, kind in self._contests:
            table.add_column(
                task if kind == "cost" else f"{task}, equal time", justify="right", overflow="fold"
            )
        for who in self._methods:
            cells = [_cell(rows, contest, who) for contest in self._contests]
            table.add_row(Text(_name(*who), style=colour(who[0])), *cells)
        return table

    def name(self, run: Run) -> str:
        """See `View.name`."""
        return f"{run.task}, {_name(*run.contender)}, seed {run.seed}"

    def line(self, row: Row) -> Text:
        """See `View.line`."""
        who = _name(row["method"], row["variant"])
        text = Text(f"{row['task']}  {who}  seed {row['seed']}  ")
        if row["final"]:
            final = row["final"]
            return text.append(f"{100 * final['test_accuracy']:.1f} %  {final['seconds']:.1f} s")
        return text.append(row["error"], style="red")


def _cell(rows: Sequence[Row], contest: tuple[str, str], who: tuple[str, str]) -> Text:
    own = [
        row
        for row in rows
        if (row["task"], equal(row)) == contest and (row["method"], row.get("variant", "")) == who
    ]
    values = [100 * row["final"]["test_accuracy"] for row in own if row["final"]]
    text = Text("–" if not values else "", style="dim" if not values else "")
    if values:
        mean, half, n = interval(values)
        width = "" if math.isnan(half) else f" ± {half:.1f}"
        text.append(f"{mean:.1f}{width}").append(f"  n={n}", style="dim")
    if lost := len(own) - len(values):
        text.append(f"  {lost} failed", style="red")
    return text


def _name(method: str, variant: str) -> str:
    return f"{label(method)}, {variant}" if variant else label(method)
