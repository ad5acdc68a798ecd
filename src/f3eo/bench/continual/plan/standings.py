"""Tables for the terminal: what is running, and how learners stand at the end."""

from collections.abc import Sequence
from math import isnan, nan

from rich import box
from rich.table import Table
from rich.text import Text

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.numbers import NUMBERS
from f3eo.bench.continual.numbers.statistics import by_seed, intervals
from f3eo.bench.continual.run.stream_run import StreamRun
from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.execute.view import View
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.student import Interval, interval

SHOWN = ("average", "forgetting", "last")
"""Numbers of the final table."""
LEVELS = ("average", "last")
"""Those that are a score; of losses and errors they are shown as they are, not turned."""


class Averages(View):
    """The average score over stages; a row per learner, a column per stream and kind of equality.

    Args:
        runs: all runs of the execution.
    """

    def __init__(self, runs: Sequence[StreamRun]) -> None:
        self._contests = list(dict.fromkeys(run.contest for run in runs))
        self._learners = list(dict.fromkeys(run.learner for run in runs))
        self._tuning = any(run.kind == "trial" for run in runs)

    def table(self, rows: Sequence[Row]) -> Table:
        """See `View.table`; of trials the best."""
        title = "Average score" + (", best setting on held-out samples" if self._tuning else "")
        table = Table(box=None, padding=(0, 2), title=title, title_justify="left")
        table.add_column("", overflow="fold")
        for stream, equal in self._contests:
            name = stream if self._tuning else f"{stream}, equal {equal}"
            table.add_column(name, justify="right", overflow="fold")
        for learner in self._learners:
            cells = [self._cell(rows, *contest, learner) for contest in self._contests]
            table.add_row(name_of(learner), *cells)
        return table

    def name(self, run: StreamRun) -> str:
        """See `View.name`."""
        return f"{run.stream}, {PEERS[run.learner].label}, seed {run.seed}"

    def line(self, row: Row) -> Text:
        """See `View.line`."""
        equal = row["config"]["equal"]
        who = f"{row['stream']}  equal {equal}  {PEERS[row['learner']].label}  seed {row['seed']}  "
        if row["status"] != "finished":
            return Text(who).append(row["error"], style="red")
        metric = STREAMS[row["stream"]].metric
        value = interval([NUMBERS["average"].of(row["scores"], metric)])
        return Text(f"{who}{shown(value, 'average', metric)}  {row['seconds']:.1f} s")

    def _cell(self, rows: Sequence[Row], stream: str, equal: str, learner: str) -> Text:
        own = [
            row
            for row in rows
            if (row["stream"], row["config"]["equal"], row["learner"]) == (stream, equal, learner)
        ]
        metric = STREAMS[stream].metric
        ended = [row["scores"] for row in own if row["status"] == "finished"]
        values = [NUMBERS["average"].of(scores, metric) for scores in ended]
        text = Text("–" if not values else "", style="dim" if not values else "")
        if values:
            found = Interval(max(values), nan, len(values)) if self._tuning else interval(values)
            text.append(shown(found, "average", metric)).append(f"  n={found.n}", style="dim")
        if lost := len(own) - len(values):
            text.append(f"  {lost} lost", style="red")
        return text


def table(stream: str, equal: str, learners: Sequence[str], rows: Sequence[Row]) -> Table:
    """How learners stand on a stream, the best average first.

    Args:
        stream: its name.
        equal: "steps" or "time".
        learners: names.
        rows: results; lost runs are counted, not averaged.
    """
    metric = STREAMS[stream].metric
    unit = "%" if metric == "accuracy" else f"{metric}, lower is better"
    grid = Table(
        box=box.SIMPLE_HEAD, title=f"{stream}, equal {equal} ({unit})", title_justify="left"
    )
    grid.add_column("learner", overflow="fold")
    for name in (*(NUMBERS[name].label for name in SHOWN), "seeds", "lost"):
        grid.add_column(name, justify="right", overflow="fold")
    found = {name: intervals(by_seed(rows, NUMBERS[name], stream, metric, equal)) for name in SHOWN}
    averages = found["average"]
    order = sorted(learners, key=lambda name: -averages[name].mean if name in averages else 1e9)
    for learner in order:
        cells = [
            shown(found[name][learner], name, metric) if learner in found[name] else "–"
            for name in SHOWN
        ]
        own = [
            row
            for row in rows
            if (row["stream"], row["config"]["equal"], row["learner"]) == (stream, equal, learner)
        ]
        lost = sum(row["status"] != "finished" for row in own)
        grid.add_row(name_of(learner), *cells, str(len(own) - lost), str(lost))
    return grid


def name_of(learner: str) -> Text:
    """A learner's label in its colour."""
    return Text(PEERS[learner].label, style=PEERS[learner].colour)


def shown(found: Interval, number: str, metric: str) -> str:
    """A mean and half of its interval, if there is one; in % for accuracies, else as it is.

    Args:
        found: of the number, turned where the metric is better when lower.
        number: its name in `NUMBERS`.
        metric: that of the stream.
    """
    factor, digits = (100, 2) if metric == "accuracy" else (1, 4)
    mean = -found.mean if number in LEVELS and metric != "accuracy" else found.mean
    width = "" if isnan(found.half) else f" ± {factor * found.half:.{digits}f}"
    return f"{factor * mean:.{digits}f}{width}"
