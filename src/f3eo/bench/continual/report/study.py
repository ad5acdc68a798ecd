"""The results of a stream study, by stream and budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from f3eo.bench.continual.report import names
from f3eo.bench.continual.report.measure import Measure
from f3eo.bench.continual.report.quantities import Quantity
from f3eo.bench.continual.report.values import Values, values
from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.run.row import Row

EQUAL = {"steps": "equal steps", "time": "equal seconds"}
"""What runs may have in common, and its name."""


class Place(NamedTuple):
    """Where learners are compared: one stream at one budget.

    Attributes:
        stream: name of the stream.
        equal: what the runs have in common, one of EQUAL.
    """

    stream: str
    equal: str

    @property
    def title(self) -> str:
        """The place in words."""
        return f"{self.stream}, {EQUAL.get(self.equal, self.equal)}"


@dataclass(frozen=True)
class StreamStudy:
    """The data of a stream study.

    Args:
        name: name of the study.
        results: rows on test sets, one per key.
        trials: rows of the tuning; default none.
        asked: content of `study.json`; default empty.
        damaged: one sentence per file with damaged lines; default none.
    """

    name: str
    results: Sequence[Row]
    trials: Sequence[Row] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    damaged: Sequence[str] = ()

    @cached_property
    def learners(self) -> list[str]:
        """The learners of the results, kind by kind."""
        return names.ordered({row["learner"] for row in self.results})

    @cached_property
    def places(self) -> dict[Place, list[Row]]:
        """The results by place, sorted by learner and seed."""
        order = {name: at for at, name in enumerate([*STREAMS, *sorted(self._unknown)])}
        equals = list(EQUAL)
        found: dict[Place, list[Row]] = {}
        for row in self.results:
            found.setdefault(Place(row["stream"], row["config"]["equal"]), []).append(row)
        return {
            place: sorted(
                found[place], key=lambda r: (self.learners.index(r["learner"]), r["seed"])
            )
            for place in sorted(found, key=lambda p: (order[p.stream], equals.index(p.equal)))
        }

    @cached_property
    def streams(self) -> list[str]:
        """The streams of the results, in the order of the registry."""
        return list(dict.fromkeys(place.stream for place in self.places))

    @property
    def _unknown(self) -> set[str]:
        return {row["stream"] for row in self.results} - set(STREAMS)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the results."""
        return sorted({row["seed"] for row in self.results})

    def at(self, place: Place) -> list[str]:
        """The learners with a row at a place."""
        present = {row["learner"] for row in self.places.get(place, ())}
        return [learner for learner in self.learners if learner in present]

    @staticmethod
    def measure(place: Place) -> Measure:
        """What the stream of a place is scored by."""
        return names.measure_of(place.stream)

    def values(self, place: Place, quantity: Quantity) -> Values:
        """A quantity of every run at a place."""
        rows = self.places.get(place, [])
        return values(rows, quantity, self.measure(place))
