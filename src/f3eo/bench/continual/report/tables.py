"""The tables of a stream: learners down, quantities across."""

import math
from collections.abc import Collection, Sequence

from f3eo.bench.continual.report.differences import compare, corrected
from f3eo.bench.continual.report.measure import Measure, decimal
from f3eo.bench.continual.report.names import kind, measure_of
from f3eo.bench.continual.report.quantities import (
    FREE_ENERGY,
    NUMBERS,
    RELATIVE,
    STRUCTURE,
    TRACE,
    Quantity,
    on_unseen,
)
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.continual.report.values import Values
from f3eo.bench.report.cells import NOTHING, Cell, Table
from f3eo.bench.report.page import number
from f3eo.bench.statistics.student import Interval

BETTER_BY_ITSELF = (TRACE, RELATIVE, FREE_ENERGY)
"""What of the structure has a best value; the two parts of the free energy have none alone."""


def numbers_table(study: StreamStudy, place: Place) -> Table:
    """The numbers of the field."""
    return table(study, place, NUMBERS)


def structure_table(study: StreamStudy, place: Place) -> Table | None:
    """The structure after the last stage; None if no row has it."""
    made = table(study, place, STRUCTURE, BETTER_BY_ITSELF)
    return made if _filled(made) else None


def overview(study: StreamStudy, equal: str, quantity: Quantity) -> Table:
    """One quantity at a budget, a column for each stream that has it; cells as in `table`."""
    here = [place for place in study.places if place.equal == equal]
    places = [place for place in here if study.values(place, quantity).runs]
    learners = [name for name in study.learners if any(name in study.at(p) for p in places)]
    lines: dict[str, list[Cell]] = {learner: [] for learner in learners}
    for place in places:
        column = _column(study, place, quantity)
        for learner, line in lines.items():
            line.append(column.get(learner, Cell()))
    return Table([_stream_head(place.stream) for place in places], lines)


def table(
    study: StreamStudy,
    place: Place,
    quantities: Sequence[Quantity],
    judged: Collection[Quantity] | None = None,
) -> Table:
    """Means with 95 % intervals; in each group the best, and what is not told apart from it.

    The groups are the learners with and without a memory of samples: these have more information.

    Args:
        study: the results.
        place: stream and budget.
        quantities: the columns.
        judged: those with a best value; default all.
    """
    measure = measure_of(place.stream)
    lines: dict[str, list[Cell]] = {learner: [] for learner in study.at(place)}
    for quantity in quantities:
        column = _column(study, place, quantity, judged is None or quantity in judged)
        for learner, line in lines.items():
            line.append(column[learner])
    return Table([quantity.head(measure) for quantity in quantities], lines)


def _column(
    study: StreamStudy, place: Place, quantity: Quantity, judged: bool = True
) -> dict[str, Cell]:
    """The cells of the learners at a place."""
    measure = measure_of(place.stream)
    values = study.values(place, quantity)
    means, leaders = values.means, _leaders(values)
    cells = {}
    for learner in study.at(place):
        lost = len(values.lost.get(learner, ()))
        note = f"{lost} lost" if lost else ""
        if learner not in means:
            cells[learner] = Cell(small=note)
            continue
        spread = _half(means[learner], quantity, measure)
        best, level = (judged and learner in names for names in leaders)
        cells[learner] = Cell(
            shown(means[learner].mean, quantity, measure),
            "\n".join(part for part in (spread, note) if part),
            best,
            "level" if level else None,
        )
    return cells


def _stream_head(stream: str) -> str:
    """Its name, with its measure where that is not accuracy."""
    measure = measure_of(stream)
    return stream if measure.name == "accuracy" else f"{stream} ({measure.name})"


def unseen_tables(study: StreamStudy, place: Place) -> dict[str, Table]:
    """Scores on unseen tasks: before a step after n stages, then after steps, by title."""
    tables = {}
    afters, steps, shots = unseen_axes(study, place)
    if not afters:
        return {}
    early = [on_unseen(n, None, 0, f"after {_stages(n)}") for n in afters]
    tables["Before a single step"] = table(study, place, early)
    for shot in shots:
        columns = [on_unseen(afters[-1], shot, s, _steps(s)) for s in steps]
        title = "all training samples" if shot is None else f"{shot} samples per class"
        tables[f"After {_stages(afters[-1])}, steps on {title}"] = table(study, place, columns)
    return {title: made for title, made in tables.items() if _filled(made)}


def unseen_axes(study: StreamStudy, place: Place) -> tuple[list[int], list[int], list[int | None]]:
    """The numbers of stages, of steps and of shots in the entries on unseen tasks, sorted."""
    entries = [
        entry
        for row in study.places.get(place, ())
        if row["status"] == "finished"
        for entry in row["unseen"] or ()
    ]
    shots = {entry["shots"] for entry in entries}
    return (
        sorted({entry["after"] for entry in entries}),
        sorted({step for entry in entries for step in entry["steps"]}),
        [*([None] if None in shots else []), *sorted(shots - {None})],
    )


def shown(value: float, quantity: Quantity, measure: Measure) -> str:
    """A value as text: the decimals of the score, or three significant digits."""
    return decimal(value, measure.digits if quantity.scored else None)


def _half(found: Interval, quantity: Quantity, measure: Measure) -> str:
    if math.isnan(found.half):
        return "one run"
    digits = measure.digits if quantity.scored else _decimals(number(found.mean))
    return f"± {found.half:.{digits}f}" if digits is not None else f"± {number(found.half, 2)}"


def _decimals(text: str) -> int | None:
    """The number of decimals of a number as text; None with an exponent."""
    return None if "e" in text else len(text.partition(".")[2])


def _leaders(values: Values) -> tuple[set[str], set[str]]:
    """The learners with the best mean of their group, and those not told apart from them."""
    best, level = set[str](), set[str]()
    for memory in (False, True):
        group = [name for name in values.means if (kind(name) == "memory") == memory]
        if not group:
            continue
        best.add(group[0])
        pairs = {name: compare(values, group[0], name) for name in group[1:]}
        tested = corrected({name: pair for name, pair in pairs.items() if pair})
        level.update(name for name, pair in tested.items() if pair.relation == "level")
    return best, level


def _filled(made: Table) -> bool:
    """Whether any cell has a value."""
    return any(cell.text != NOTHING for line in made.lines.values() for cell in line)


def _stages(count: int) -> str:
    return f"{count} stage{'s' if count != 1 else ''}"


def _steps(count: int) -> str:
    return f"{count} step{'s' if count != 1 else ''}"
