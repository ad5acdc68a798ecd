"""What a stream is scored by: unit, direction, decimals, and what counts as an equal score."""

from typing import NamedTuple

from f3eo.bench.report.page import number

POINT = 1.0
"""Two accuracies within this, in points, count as equal."""
SHARE = 0.05
"""Two losses or errors within this share of the other's count as equal."""


class Measure(NamedTuple):
    """The score of a stream.

    Attributes:
        name: "accuracy", "loss" or "error".
        unit: of the shown value, with a blank before it where it has one.
        factor: the shown value over the stored one.
        larger_is_better: whether larger scores are better.
        digits: decimals of a shown value.
    """

    name: str
    unit: str
    factor: float
    larger_is_better: bool
    digits: int

    @property
    def sign(self) -> int:
        """The factor that makes larger better: 1 or −1."""
        return 1 if self.larger_is_better else -1

    def margin(self, other: float) -> float:
        """By how much a score may be worse than `other` and still count as equal, as shown."""
        return POINT if self.larger_is_better else SHARE * abs(other)


MEASURES = {
    "accuracy": Measure("accuracy", " %", 100.0, True, 2),
    "loss": Measure("loss", " nats", 1.0, False, 4),
    "error": Measure("error", "", 1.0, False, 4),
}


def measure(name: str) -> Measure:
    """The measure of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in MEASURES:
        allowed = ", ".join(MEASURES)
        raise ValueError(f"a stream is scored by one of {allowed}, received {name!r}: name one")
    return MEASURES[name]


def decimal(value: float, digits: int | None) -> str:
    """A number with so many decimals, or with three significant digits for None."""
    return (number(value) if digits is None else f"{value:.{digits}f}").replace("-", "−")


def signed(value: float, digits: int | None) -> str:
    """As `decimal`, with a sign."""
    return ("+" if value >= 0 else "") + decimal(value, digits)
