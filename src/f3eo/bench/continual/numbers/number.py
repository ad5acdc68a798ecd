"""A number of a run: its formula, its name, and which way is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from f3eo.bench.continual.numbers import matrix
from f3eo.bench.continual.numbers.matrix import Matrix, turned


@dataclass(frozen=True)
class Number:
    """One number of a matrix of scores.

    Args:
        name: short name, for files and the command line.
        label: name in tables and figures.
        formula: matrix of scores of which higher is better -> the number.
        larger_is_better: whether larger values are better; default True.
    """

    name: str
    label: str
    formula: Callable[[Matrix], float]
    larger_is_better: bool = True

    def of(self, scores: Matrix, metric: str) -> float:
        """The number of a run, with the signs of `matrix.turned`.

        Args:
            scores: (K + 1, K), as rows store them.
            metric: that of the stream: "accuracy", "loss" or "error".
        """
        return self.formula(turned(scores, metric))


NUMBERS: Mapping[str, Number] = {
    number.name: number
    for number in (
        Number("average", "average", matrix.average),
        Number("forgetting", "forgetting", matrix.forgetting, larger_is_better=False),
        Number("backward", "backward transfer", matrix.backward_transfer),
        Number("forward", "forward transfer", matrix.forward_transfer),
        Number("learning", "learning accuracy", matrix.learning),
        Number("last", "last stage", matrix.last),
    )
}
"""All numbers, by name."""
