"""The methods of a task by mean test accuracy, at equal cost and at equal time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from f3eo.bench.methods import METHODS, colour, label
from f3eo.bench.run.row import Row, equal
from f3eo.bench.run.run import Equal
from f3eo.bench.statistics.student import Interval, interval

EQUALS: tuple[Equal, ...] = ("cost", "time")
"""What the methods of a comparison may spend the same amount of."""


class Standing(NamedTuple):
    """The result of a method at equal cost or at equal time.

    Attributes:
        rank: 1 for the best mean, ties share the better rank; None if no run finished.
        accuracy: mean test accuracy in % with its 95 % interval; None if no run finished.
        steps: number of steps that the budget pays for.
        price: cost or time of a step, in plain gradients.
    """

    rank: int | None
    accuracy: Interval | None
    steps: int | None
    price: float | None


class Place(NamedTuple):
    """All standings of a method.

    Attributes:
        method: its name.
        order: its order (1, 2 or 3); None for an unknown method.
        standings: by "cost" and "time".
        error: its first error, else None.
    """

    method: str
    order: int | None
    standings: dict[Equal, Standing]
    error: str | None


def standings(rows: Sequence[Row], task: str) -> list[Place]:
    """Every method of a task, the best at equal cost first, those without a result last."""
    rows = [row for row in rows if row["task"] == task]
    tables: dict[Equal, dict[str, Standing]] = {}
    for kind in EQUALS:
        if mine := [row for row in rows if equal(row) == kind]:
            tables[kind] = _standings(mine)
    places = [
        Place(
            method,
            METHODS[method].order if method in METHODS else None,
            {kind: table[method] for kind, table in tables.items() if method in table},
            next((row["error"] for row in rows if row["method"] == method and row["error"]), None),
        )
        for method in dict.fromkeys(row["method"] for row in rows)
    ]
    last = len(places) + 1
    return sorted(
        places,
        key=lambda p: [s.rank or last for kind in tables if (s := p.standings.get(kind))] or [last],
    )


def _standings(rows: Sequence[Row]) -> dict[str, Standing]:
    values: dict[str, list[float]] = {row["method"]: [] for row in rows}
    first: dict[str, Row] = {}
    for row in rows:
        if row["steps"]:
            first.setdefault(row["method"], row)
        if row["final"]:
            values[row["method"]].append(100 * row["final"]["test_accuracy"])
    means = {method: interval(finals) for method, finals in values.items() if finals}
    return {method: _standing(means, method, first.get(method)) for method in values}


def _standing(means: dict[str, Interval], method: str, row: Row | None) -> Standing:
    mine = means.get(method)
    rank = 1 + sum(other.mean > mine.mean for other in means.values()) if mine else None
    if row is None:
        return Standing(rank, mine, None, None)
    price = row["config"].get("price", row["gradient_equivalents"])
    return Standing(rank, mine, row["steps"], price)


def table(places: Sequence[Place], task: str) -> Table:
    """The standings of a task as a table for the terminal."""
    kinds: list[Equal] = [
        kind for kind in EQUALS if any(kind in place.standings for place in places)
    ]
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", title=f"{task}, ranks")
    grid.add_column("method", overflow="fold")
    grid.add_column("order", justify="right", overflow="fold")
    for kind in kinds:
        for name in (f"equal {kind}", "accuracy, %", "steps", f"{kind}/step"):
            grid.add_column(name, justify="right", overflow="fold")
    for place in places:
        cells: list[Any] = [Text(label(place.method), style=colour(place.method))]
        cells.append(str(place.order or "–"))
        for kind in kinds:
            cells += _cells(place.standings.get(kind), place.error)
        grid.add_row(*cells)
    return grid


def _cells(standing: Standing | None, error: str | None) -> list[Any]:
    if standing is None or standing.accuracy is None or standing.rank is None:
        return ["–", Text("failed" if error else "–", style="red"), "", ""]
    return [
        str(standing.rank),
        f"{standing.accuracy.mean:.1f}",
        f"{standing.steps:,}",
        f"{standing.price:.2f}",
    ]
