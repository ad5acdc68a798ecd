"""Breast cancer from scikit-learn: 569 tumours in two classes, 30 measurements each."""

from functools import partial

from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.corruption import TABLE
from f3eo.bench.tasks.tabular import split
from f3eo.bench.tasks.task import Data, Task


def load() -> Data:
    """Half of the samples to train on, half to test, standardised."""
    from sklearn.datasets import load_breast_cancer  # imported here because it is slow

    return split(*load_breast_cancer(return_X_y=True), train=0.5)


TASK = Task(
    name="breast-cancer",
    description="scikit-learn's breast cancer, 284 samples to train on and 285 to test; "
    "MLP 30-64-64-2",
    load=load,
    model=partial(mlp, 30, 64, 64, 2),
    splits=4,
    batch=32,
    budget=3_000,
    target=0.06,
    score="loss",  # accuracy is too coarse on so few samples
    corruptions=TABLE,
)

TASKS = (TASK,)
