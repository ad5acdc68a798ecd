"""The page of a stream study, as HTML."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.report import names
from f3eo.bench.continual.report.against import against_tables
from f3eo.bench.continual.report.claims import RULE, SOURCE, judged
from f3eo.bench.continual.report.curves import SERIES, coloured
from f3eo.bench.continual.report.facts import chosen, comparisons, failures, figures, found
from f3eo.bench.continual.report.gaps import gaps
from f3eo.bench.continual.report.goals import reached
from f3eo.bench.continual.report.measure import POINT, SHARE
from f3eo.bench.continual.report.quantities import (
    AVERAGE,
    FORGETTING,
    LAST,
    ZERO_STEP,
    Quantity,
)
from f3eo.bench.continual.report.study import EQUAL, Place, StreamStudy
from f3eo.bench.continual.report.tables import numbers_table, structure_table, unseen_tables
from f3eo.bench.report import page
from f3eo.bench.report.cells import Cell, Table
from f3eo.bench.report.drawing import data_uri
from f3eo.bench.report.page import number
from f3eo.bench.report.provenance import commands, environments
from f3eo.bench.statistics.paired import FEWEST
from f3eo.bench.statistics.significance import LEVEL

TESTED: tuple[Quantity, ...] = (AVERAGE, FORGETTING, LAST, ZERO_STEP)
"""The quantities by which every learner of F3EO is tested against each peer."""


def render(study: StreamStudy, drawn: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        study: the results.
        drawn: its pictures as SVG files, by name.
    """
    rows = list(study.results)
    equals = [equal for equal in EQUAL if any(p.equal == equal for p in study.places)]
    return page.render(
        "streams.html.j2",
        title=study.name,
        study=study,
        gaps=gaps(study),
        source=SOURCE,
        rule=RULE,
        claims=_claims(study),
        goals=_goals(study, equals),
        budgets=[EQUAL[equal] for equal in equals],
        streams=[_stream(study, stream, drawn) for stream in study.streams],
        costs=costs_table(study),
        trials=len(study.trials),
        failures=failures(study.places),
        finished=sum(row["status"] == "finished" for row in rows),
        environments=environments(rows),
        commands=commands([*study.trials, *rows]),
        searched=_searched,
        origin=_origin,
        kind=names.kind,
        kinds=names.KINDS,
        label=names.label,
        colour=names.colour,
        ours=names.OURS,
        level=LEVEL,
        fewest=FEWEST,
        point=POINT,
        share=SHARE,
    )


def costs_table(study: StreamStudy) -> Table:
    """Mean seconds of training, and the steps in a stage, by learner and place."""

    def cell(place: Place, learner: str) -> Cell:
        rows = [
            row
            for row in study.places[place]
            if row["learner"] == learner and row["status"] == "finished"
        ]
        if not rows:
            return Cell()
        steps = rows[0]["steps"]
        least = min(steps) if isinstance(steps, list) else steps
        return Cell(number(fmean(row["seconds"] for row in rows)), f"{least:,} steps")

    lines = {
        learner: [cell(place, learner) for place in study.places] for learner in study.learners
    }
    return Table([place.title for place in study.places], lines)


def _claims(study: StreamStudy) -> list[dict[str, Any]]:
    return [
        {
            "says": claim.claim.says,
            "measured": claim.claim.measured,
            "found": found(claim),
            "verdict": claim.verdict,
            "tables": comparisons(claim),
        }
        for claim in judged(study)
    ]


def _goals(study: StreamStudy, equals: list[str]) -> list[dict[str, Any]]:
    sides = [reached(study, equal) for equal in equals]
    return [
        {
            "says": same[0].goal.says,
            "sides": [{"lines": figures(side), "reached": side.reached} for side in same],
        }
        for same in zip(*sides, strict=True)
    ]


def _stream(study: StreamStudy, stream: str, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page shows of one stream."""
    places = [place for place in study.places if place.stream == stream]
    measure = names.measure_of(stream)
    shown = [_place(study, place, drawn) for place in places]
    return {
        "name": stream,
        "description": names.description(stream),
        "setting": _setting(study, places),
        "unit": measure.unit.strip(),
        "score": measure.name,
        "larger": measure.larger_is_better,
        "places": shown,
        "unseen": any(place["unseen"] for place in shown),
        "against": against_tables(study, stream, TESTED),
        "options": chosen([row for place in places for row in study.places[place]]),
    }


def _setting(study: StreamStudy, places: Sequence[Place]) -> str:
    """Stages, samples, batch and epochs of the runs at these places, in words."""

    def words(config: Mapping[str, Any]) -> str:
        stages, samples, epochs = (config[name] for name in ("stages", "samples", "epochs"))
        each = "all training samples" if samples is None else f"{samples:,} training samples"
        tests = config["tests"]
        judged = "" if tests is None else f", {tests:,} test samples of each"
        passes = "one pass" if epochs == 1 else f"{epochs} passes"
        return (
            f"{stages} stage{'s' if stages != 1 else ''}, {passes} through {each} of each, "
            f"batches of {config['batch']}{judged}"
        )

    configs = (row["config"] for place in places for row in study.places[place])
    return "; ".join(dict.fromkeys(map(words, configs)))


def _place(study: StreamStudy, place: Place, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page shows of one stream at one budget."""

    def image(name: str) -> str | None:
        svg = drawn.get(f"{name}-{place.stream}-{place.equal}")
        return None if svg is None else data_uri(svg)

    curves = [(series.title, image(series.name)) for series in SERIES]
    named = coloured(study, place)
    return {
        "budget": EQUAL[place.equal],
        "numbers": numbers_table(study, place),
        "structure": structure_table(study, place),
        "matrix": image("matrix"),
        "curves": [(title, picture) for title, picture in curves if picture],
        "pale": [learner for learner in study.at(place) if learner not in named],
        "adaptation": image("adaptation"),
        "unseen": unseen_tables(study, place),
    }


def _searched(learner: str) -> str:
    """The ranges of the searched options, as text."""
    if learner not in PEERS:
        return ""
    space = PEERS[learner].space
    return ", ".join(f"{name} {d.low:g} … {d.high:g}" for name, d in space.items())


def _origin(learner: str) -> str:
    """The paper of a learner, or the package it is from."""
    source = PEERS[learner].source if learner in PEERS else None
    return "" if source is None else source.paper or source.package
