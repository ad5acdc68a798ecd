"""Tables whose cells are ready to be shown, their number formats, and their Markdown."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from f3eo.bench.methods import label
from f3eo.bench.report.page import number
from f3eo.bench.run.metrics import Metric
from f3eo.bench.statistics.bootstrap import Range
from f3eo.bench.statistics.significance import Relation

NOTHING = "–"


class Cell(NamedTuple):
    """One cell.

    Attributes:
        text: main text; default NOTHING.
        small: smaller text below it, one line or more; default none.
        best: whether the cell is the best of its column; default False.
        mark: significant difference to the table's reference; default None, no mark.
    """

    text: str = NOTHING
    small: str = ""
    best: bool = False
    mark: Relation | None = None


class Table(NamedTuple):
    """A table: one cell per column in each line.

    Attributes:
        columns: heads of the columns.
        lines: cells by name of the line, a method's name or free text.
    """

    columns: list[str]
    lines: dict[str, list[Cell]]


def markdown(
    table: Table,
    first: str = "",
    names: Sequence[str] | None = None,
    label: Callable[[str], str] = label,
) -> list[str]:
    """The lines of a table in Markdown, without the small texts.

    Args:
        table: to be written.
        first: head of the first column; default empty.
        names: heads of the other columns; default those of the table.
        label: name of a line -> its label; default that of a method.
    """
    head = [first, *(names or table.columns)]
    body = [
        [label(name), *((f"**{c.text}**" if c.best else c.text) + _sign(c.mark) for c in cells)]
        for name, cells in table.lines.items()
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return ["| " + " | ".join(row) + " |" for row in rows]


def format_score(value: float, metric: Metric) -> str:
    """A mean score: two decimals in %, four for a loss."""
    return f"{value:.2f}" if metric.percent else f"{value:.4f}"


def format_interval(spread: Range, metric: Metric | None) -> str:
    """A bootstrap interval, with the decimals of a metric or, for None, significant digits."""
    if math.isnan(spread.low):
        return "one run"
    if metric is None:
        digits = 3 if abs(spread.high) >= 0.1 else 2
        return f"{number(spread.low, digits)}–{number(spread.high, digits)}"
    digits = 1 if metric.percent else 3
    return f"{spread.low:.{digits}f}–{spread.high:.{digits}f}"


def format_p(p: float) -> str:
    """A p-value in two significant digits."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def format_option(value: Any) -> str:
    """A hyper-parameter, a float in three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _sign(mark: Relation | None) -> str:
    return {"better": " ▲", "worse": " ▼"}.get(mark or "", "")
