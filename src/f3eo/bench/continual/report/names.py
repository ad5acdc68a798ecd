"""What the page calls a learner or a stream, and how it groups them; unknown names pass through."""

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.report.measure import Measure, measure
from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.report.drawing import INK, Look

OURS = "f3eo"
KINDS = {
    "plain": "Without memory or penalty",
    "regularised": "With a penalty on old parameters",
    "memory": "With a memory of old samples",
}
"""The kinds of learners, in the order of the tables, and the heads of their groups."""


def label(learner: str) -> str:
    """The label of a learner; its name if this version has no such learner."""
    return PEERS[learner].label if learner in PEERS else learner


def colour(learner: str) -> str:
    """The colour of a learner as #rrggbb; dark grey if this version has no such learner."""
    return PEERS[learner].colour if learner in PEERS else INK


LOOK = Look(label, colour)


def kind(learner: str) -> str:
    """The kind of a learner, one of KINDS; "plain" if this version has no such learner."""
    return PEERS[learner].kind if learner in PEERS else "plain"


def is_ours(learner: str) -> bool:
    """Whether a learner trains with F3EO, by its name."""
    return learner == OURS or learner.startswith((f"{OURS}_", f"{OURS}-"))


def ordered(learners: set[str]) -> list[str]:
    """Learners in the order of the registry, kind by kind; unknown ones last in their kind."""
    known = list(PEERS)
    places = {name: place for place, name in enumerate(known)}
    return sorted(
        learners, key=lambda n: (list(KINDS).index(kind(n)), places.get(n, len(known)), n)
    )


def description(stream: str) -> str:
    """A stream in one line; empty if this version has no such stream."""
    return STREAMS[stream].description if stream in STREAMS else ""


def measure_of(stream: str) -> Measure:
    """What a stream is scored by; accuracy if this version has no such stream."""
    return measure(STREAMS[stream].metric if stream in STREAMS else "accuracy")
