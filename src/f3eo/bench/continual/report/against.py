"""Every learner of F3EO against every peer on a stream: paired tests."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from f3eo.bench.continual.report.differences import Difference, compare, corrected
from f3eo.bench.continual.report.measure import Measure
from f3eo.bench.continual.report.names import is_ours, measure_of
from f3eo.bench.continual.report.quantities import Quantity
from f3eo.bench.continual.report.study import EQUAL, StreamStudy
from f3eo.bench.continual.report.values import Values
from f3eo.bench.report.cells import Cell, Table, format_p


class Against(NamedTuple):
    """One learner of F3EO against every peer on a stream.

    Attributes:
        ours: the learner.
        table: peers down; quantity and budget across.
        counts: numbers of cells that are better, level and worse.
    """

    ours: str
    table: Table
    counts: tuple[int, int, int]


def against_tables(
    study: StreamStudy, stream: str, quantities: Sequence[Quantity]
) -> list[Against]:
    """By how much every learner of F3EO is better than each peer, with interval and corrected p.

    Holm's correction is over all comparisons of a learner of F3EO with a peer by one quantity at
    one budget.

    Args:
        study: the results.
        stream: name of the stream.
        quantities: what is compared; those that no row has get no column.
    """
    columns: dict[tuple[str, str], dict[tuple[str, str], Difference]] = {}
    measure = measure_of(stream)
    for quantity in quantities:
        for place in (p for p in study.places if p.stream == stream):
            if found := _tested(study.values(place, quantity), study.at(place)):
                columns[quantity.name, place.equal] = found
    learners = dict.fromkeys(n for p in study.places if p.stream == stream for n in study.at(p))
    heads = {quantity.name: quantity.head(measure) for quantity in quantities}
    made = []
    for ours in filter(is_ours, learners):
        lines = {
            rival: [_difference(found.get((ours, rival)), measure) for found in columns.values()]
            for rival in learners
            if not is_ours(rival)
        }
        marks = [cell.mark for line in lines.values() for cell in line]
        names = [f"{heads[name]}, {EQUAL[equal]}" for name, equal in columns]
        if lines and columns:
            counts = marks.count("better"), marks.count("level"), marks.count("worse")
            made.append(Against(ours, Table(names, lines), counts))
    return made


def _tested(values: Values, learners: Iterable[str]) -> dict[tuple[str, str], Difference]:
    """Every learner of F3EO against every peer, one family."""
    names = list(learners)
    pairs = [(a, b) for a in filter(is_ours, names) for b in names if not is_ours(b)]
    return corrected({pair: found for pair in pairs if (found := compare(values, *pair))})


def _difference(found: Difference | None, measure: Measure) -> Cell:
    if found is None:
        return Cell()
    digits = measure.digits
    spread = (
        "one run"
        if math.isnan(found.low)
        else f"{found.low:+.{digits}f} … {found.high:+.{digits}f}"
    )
    p = "" if math.isnan(found.p) else f"\np {format_p(found.p)}"
    mark = found.relation
    return Cell(f"{found.mean:+.{digits}f}", spread + p, mark == "better", mark)
