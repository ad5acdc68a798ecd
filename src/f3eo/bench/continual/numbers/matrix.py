"""Numbers of one matrix of scores, as pure functions; higher scores are better.

a_ij is the score on the test set of stage j after training on i stages, in the unit of the score: a
matrix has K + 1 rows of K numbers, row 0 before any training. Scores that are better when lower are
turned first (`turned`), so that every number but forgetting is better when higher.
"""

from collections.abc import Sequence
from math import nan
from statistics import fmean

Matrix = Sequence[Sequence[float]]
"""(K + 1) rows of K numbers."""


def turned(scores: Matrix, metric: str) -> list[list[float]]:
    """The scores such that higher is better: a_ij for accuracies, −a_ij for losses and errors.

    Args:
        scores: (K + 1, K).
        metric: "accuracy", "loss" or "error".

    Raises:
        ValueError: an unknown metric, or a matrix of another shape.
    """
    if metric not in SIGNS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(SIGNS)}")
    count = len(scores) - 1
    if count < 1 or any(len(row) != count for row in scores):
        raise ValueError(
            f"a matrix has K + 1 rows of K scores, row 0 before any training; received rows of "
            f"{[len(row) for row in scores]}: a run that diverged has fewer and no numbers"
        )
    return [[SIGNS[metric] * score for score in row] for row in scores]


SIGNS = {"accuracy": 1.0, "loss": -1.0, "error": -1.0}
"""By metric, the sign that makes higher better."""


def average(a: Matrix) -> float:
    """A_K = (1/K) Σ_j a_Kj.

    Source: Lopez-Paz & Ranzato 2017 (1706.08840), equation 2; Chaudhry et al. 2018 (1801.10112).
    """
    return fmean(a[-1])


def forgetting(a: Matrix) -> float:
    """(1/(K−1)) Σ_{j<K} max_{1≤i<K} (a_ij − a_Kj), better when lower; nan for one stage.

    Source: Chaudhry et al. 2018 (1801.10112), its forgetting measure F_k.
    """
    trained = a[1:]
    lost = [max(row[j] for row in trained[:-1]) - a[-1][j] for j in range(len(a[-1]) - 1)]
    return _mean(lost)


def backward_transfer(a: Matrix) -> float:
    """(1/(K−1)) Σ_{j<K} (a_Kj − a_jj); nan for one stage.

    Source: Lopez-Paz & Ranzato 2017 (1706.08840), equation 3.
    """
    return _mean([a[-1][j] - a[j + 1][j] for j in range(len(a[-1]) - 1)])


def forward_transfer(a: Matrix) -> float:
    """(1/(K−1)) Σ_{j>1} (a_{j−1,j} − a_0j); nan for one stage.

    a_0j is measured on the run's own model before training, not an average over models.

    Source: Lopez-Paz & Ranzato 2017 (1706.08840), equation 4.
    """
    return _mean([a[j][j] - a[0][j] for j in range(1, len(a[-1]))])


def learning(a: Matrix) -> float:
    """(1/K) Σ_j a_jj, the learning accuracy.

    Source: Riemer et al. 2019 (1810.11910).
    """
    return fmean(a[j + 1][j] for j in range(len(a[-1])))


def last(a: Matrix) -> float:
    """a_KK, the score on the stage trained last."""
    return a[-1][-1]


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else nan
