"""Claims and goals in words and small tables, for the page and the summary."""

from collections.abc import Sequence
from typing import Any

from f3eo.bench.continual.report import names
from f3eo.bench.continual.report.claims import Judged
from f3eo.bench.continual.report.findings import Finding, Findings
from f3eo.bench.continual.report.goals import Figure, Goal, Reached
from f3eo.bench.continual.report.measure import Measure, signed
from f3eo.bench.continual.report.quantities import Quantity
from f3eo.bench.report.cells import Cell, Table, format_p


def found(claim: Judged) -> str:
    """In how many comparisons OURS is better, level and worse."""
    total = len(claim.relations)
    if not total:
        return "nothing that could be tested"
    better, level, worse = (claim.count(r) for r in ("better", "level", "worse"))
    return f"better in {better} of {total} comparisons, level in {level}, worse in {worse}"


def comparisons(claim: Judged) -> dict[str, Table]:
    """The comparisons of a claim by title of the quantity: places down, rivals across."""
    tables = {}
    for quantity in claim.claim.quantities:
        own = {at: f for at, f in claim.found.items() if at.quantity == quantity.name}
        if own:
            tables[quantity.title.format(score="score")] = _table(own, quantity)
    return tables


def figures(reached: Reached) -> list[str]:
    """The comparisons of a goal at a budget, one line for each stream, then what is missing."""
    goal, lines = reached.goal, []
    for stream in dict.fromkeys(figure.stream for figure in reached.figures):
        own = [figure for figure in reached.figures if figure.stream == stream]
        measure = names.measure_of(stream)
        texts = [_figure(figure, goal, measure, len(own) > 1) for figure in own]
        where = f"{stream}: " if len(goal.streams) > 1 else ""
        lines.append(where + " · ".join(texts))
    return [*lines, *reached.missing]


def _table(own: Findings, quantity: Quantity) -> Table:
    places = list(dict.fromkeys(at.place for at in own))
    rivals = names.ordered({at.rival for at in own})
    cells = {(at.place, at.rival): finding for at, finding in own.items()}
    lines = {
        place.title: [
            _cell(cells.get((place, rival)), quantity, names.measure_of(place.stream))
            for rival in rivals
        ]
        for place in places
    }
    return Table([names.label(rival) for rival in rivals], lines)


def _cell(finding: Finding | None, quantity: Quantity, measure: Measure) -> Cell:
    if finding is None:
        return Cell()
    found = finding.difference

    def text(value: float) -> str:
        return signed(value, measure.digits if quantity.scored else None)

    bought = finding.bought and found.relation == "better"
    small = f"{text(found.low)} … {text(found.high)}" if found.n > 1 else "one run"
    if found.relation is not None:
        small += f"\np {format_p(found.p)}"
    mark = None if bought else finding.relation
    return Cell(text(found.mean) + ("*" if bought else ""), small, False, mark)


def _figure(figure: Figure, goal: Goal, measure: Measure, several: bool) -> str:
    """One comparison: the difference, or the share where it is asked, and its mark."""
    found = figure.difference
    text = signed(found.mean, measure.digits)
    if figure.share is not None:
        text = f"{100 * figure.share:.0f} % less".replace("-", "−")
    if found.relation is None:
        text += f" ({found.n} seed{'s' if found.n != 1 else ''})"
    elif found.relation == "level":
        text += " ≈"
    elif figure.bought:
        text += "*"
    return (f"{names.label(figure.rival)} " if several else "") + text


def failures(places: Any) -> list[dict[str, Any]]:
    """Runs that did not finish, grouped by place, learner, status and error.

    Args:
        places: rows by place.
    """
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for place, rows in places.items():
        for row in rows:
            if row["status"] == "finished":
                continue
            shared = [row["learner"], row["status"], str(row["error"])]
            entry = groups.setdefault(
                (place.title, *shared),
                {
                    "place": place.title,
                    **dict(zip(("learner", "status", "error"), shared, strict=True)),
                    "seeds": [],
                    "traceback": row["traceback"],
                },
            )
            entry["seeds"].append(row["seed"])
    return list(groups.values())


def chosen(rows: Sequence[Any]) -> dict[str, str]:
    """The options of each learner, as text."""
    found: dict[str, str] = {}
    for row in rows:
        options = row["config"].get("options") or {}
        found.setdefault(row["learner"], ", ".join(f"{k} {_option(v)}" for k, v in options.items()))
    return found


def _option(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
