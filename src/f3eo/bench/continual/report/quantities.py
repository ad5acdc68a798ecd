"""The quantities of a run that the page shows, each a number of its row."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from f3eo.bench.continual.numbers import NUMBERS as OF_MATRIX
from f3eo.bench.continual.report.measure import Measure
from f3eo.bench.run.row import Row

Better = Literal["score", "larger", "smaller"]


class Quantity(NamedTuple):
    """A number of a run.

    Attributes:
        name: its key.
        title: head of its column; "{score}" stands for the stream's measure.
        read: (row, measure) -> the number as shown, in the measure's unit or its own; None where
            the row does not have it.
        better: whether better scores, larger or smaller values are better.
        scored: whether it has the unit of the score; default True.
        scale: scale of its axis; default "linear".
    """

    name: str
    title: str
    read: Callable[[Row, Measure], float | None]
    better: Better
    scored: bool = True
    scale: Literal["linear", "log"] = "linear"

    def sign(self, measure: Measure) -> int:
        """The factor that makes larger better: 1 or −1."""
        return measure.sign if self.better == "score" else 1 if self.better == "larger" else -1

    def head(self, measure: Measure) -> str:
        """The head of its column, with the unit where that of the score is a word."""
        return self.title.format(score=measure.name)


def _number(name: str, turned: bool = False) -> Callable[[Row, Measure], float | None]:
    """A number of the score matrix as it is shown.

    Args:
        name: of the number, whose formula takes matrices where higher is better.
        turned: whether it is itself a score, which is then shown with its own sign; default False.
    """

    def read(row: Row, measure: Measure) -> float | None:
        value = OF_MATRIX[name].of(row["scores"], measure.name)
        value = measure.factor * (measure.sign if turned else 1) * value
        return value if math.isfinite(value) else None

    return read


def _last(name: str) -> Callable[[Row, Measure], float | None]:
    """A number of the structure, after the last stage."""

    def read(row: Row, measure: Measure) -> float | None:
        value = (row["structure"].get(name) or [None])[-1]
        return value if value is not None and math.isfinite(value) else None

    return read


def adapted(row: Row, after: int, shots: int | None, steps: int) -> float | None:
    """The mean score on unseen tasks after some steps on each, as stored.

    Args:
        row: of a finished run.
        after: number of stages trained before.
        shots: samples per class of the unseen task, or None for all of its training samples; at
            zero steps any, since none is used.
        steps: number of steps on it.
    """
    scores = {
        entry["stage"]: entry["scores"][entry["steps"].index(steps)]
        for entry in row["unseen"] or ()
        if entry["after"] == after
        and steps in entry["steps"]
        and (entry["shots"] == shots or not steps)
    }
    return fmean(scores.values()) if scores else None


def _zero(row: Row, measure: Measure) -> float | None:
    after = max((entry["after"] for entry in row["unseen"] or ()), default=0)
    return shown(adapted(row, after, None, 0), measure)


def shown(score: float | None, measure: Measure) -> float | None:
    """A stored score as it is shown; None and what is not finite become None."""
    return score * measure.factor if score is not None and math.isfinite(score) else None


def on_unseen(after: int, shots: int | None, steps: int, title: str) -> Quantity:
    """The mean score on unseen tasks as a quantity; see `adapted`."""

    def read(row: Row, measure: Measure) -> float | None:
        return shown(adapted(row, after, shots, steps), measure)

    return Quantity(f"unseen-{after}-{shots}-{steps}", title, read, "score")


AVERAGE = Quantity("average", "Average {score}", _number("average", True), "score")
FORGETTING = Quantity("forgetting", "Forgetting", _number("forgetting"), "smaller")
BACKWARD = Quantity("backward", "Backward transfer", _number("backward"), "larger")
FORWARD = Quantity("forward", "Forward transfer", _number("forward"), "larger")
LEARNING = Quantity("learning", "Learning {score}", _number("learning", True), "score")
LAST = Quantity("last", "Last task", _number("last", True), "score")
NUMBERS: Sequence[Quantity] = (AVERAGE, FORGETTING, BACKWARD, FORWARD, LEARNING, LAST)
"""The numbers of the field, functions of the score matrix."""

ZERO_STEP = Quantity("zero", "Zero-step {score}", _zero, "score")
"""The score on tasks never trained on, before a step on them, after the most stages."""

TRACE = Quantity("trace", "Tr F", _last("trace"), "smaller", scored=False, scale="log")
RELATIVE = Quantity(
    "relative_trace", "Tr(D F D)", _last("relative_trace"), "smaller", scored=False, scale="log"
)
FREE_ENERGY = Quantity(
    "free_energy", "Free energy (nats a sample)", _last("free_energy"), "smaller", scored=False
)
COMPLEXITY = Quantity(
    "complexity", "Complexity (nats a sample)", _last("complexity"), "smaller", scored=False
)
FIT = Quantity("accuracy", "Accuracy (nats a sample)", _last("accuracy"), "larger", scored=False)
STRUCTURE: Sequence[Quantity] = (TRACE, RELATIVE, FREE_ENERGY, COMPLEXITY, FIT)
"""The structure on training samples of all stages, after the last."""
