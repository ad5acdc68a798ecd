"""Every learner of F3EO against every peer on a stream: paired tests."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from f3eo.bench.continual.report.differences import Difference, compare, corrected
from f3eo.bench.continual.report.measure import Measure, signed
from f3eo.bench.continual.report.names import is_ours, measure_of
from f3eo.bench.continual.report.quantities import Quantity
from f3eo.bench.continual.report.study import EQUAL, Place, StreamStudy
from f3eo.bench.continual.report.values import Values
from f3eo.bench.report.cells import Cell, Table, format_p
from f3eo.bench.statistics.significance import Relation

Pairs = Mapping[tuple[str, str], Difference]
"""A learner of F3EO against a peer, by both names."""
Tested = Mapping[tuple[Quantity, Place], Pairs]


class Against(NamedTuple):
    """One learner of F3EO against every peer on a stream.

    Attributes:
        ours: the learner.
        table: peers down; quantity and budget across.
        counts: by title of the quantity, the numbers of cells that are better, level and worse.
    """

    ours: str
    table: Table
    counts: dict[str, tuple[int, int, int]]


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
    places = [place for place in study.places if place.stream == stream]
    tested = {
        (quantity, place): found
        for quantity in quantities
        for place in places
        if (found := _tested(study.values(place, quantity), study.at(place)))
    }
    if not tested:
        return []
    measure = measure_of(stream)
    learners = list(dict.fromkeys(name for place in places for name in study.at(place)))
    heads = [f"{q.head(measure)}, {EQUAL[place.equal]}" for q, place in tested]
    return [
        Against(
            ours,
            Table(
                heads,
                {
                    rival: [_cell(pairs.get((ours, rival)), measure) for pairs in tested.values()]
                    for rival in learners
                    if not is_ours(rival)
                },
            ),
            _counts(tested, ours, measure),
        )
        for ours in learners
        if is_ours(ours)
    ]


def _counts(tested: Tested, ours: str, measure: Measure) -> dict[str, tuple[int, int, int]]:
    """The numbers of outcomes of one learner, by title of the quantity."""
    relations: dict[str, list[Relation | None]] = {}
    for (quantity, _), pairs in tested.items():
        own = relations.setdefault(quantity.head(measure), [])
        own.extend(pair.relation for (first, _), pair in pairs.items() if first == ours)
    return {
        title: (found.count("better"), found.count("level"), found.count("worse"))
        for title, found in relations.items()
    }


def _tested(values: Values, learners: Iterable[str]) -> Pairs:
    """Every learner of F3EO against every peer, one family."""
    names = list(learners)
    pairs = [(a, b) for a in filter(is_ours, names) for b in names if not is_ours(b)]
    return corrected({pair: found for pair in pairs if (found := compare(values, *pair))})


def _cell(found: Difference | None, measure: Measure) -> Cell:
    if found is None:
        return Cell()
    digits = measure.digits
    low, high = signed(found.low, digits), signed(found.high, digits)
    spread = "one run" if math.isnan(found.low) else f"{low} … {high}"
    p = "" if math.isnan(found.p) else f"\np {format_p(found.p)}"
    mark = found.relation
    return Cell(signed(found.mean, digits), spread + p, mark == "better", mark)
