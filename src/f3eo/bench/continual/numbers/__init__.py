"""The numbers of continual learning, from the matrix of scores of a run."""

from f3eo.bench.continual.numbers.matrix import (
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
    last,
    learning,
    turned,
)
from f3eo.bench.continual.numbers.number import NUMBERS, Number

__all__ = [
    "NUMBERS",
    "Number",
    "average",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "last",
    "learning",
    "turned",
]
