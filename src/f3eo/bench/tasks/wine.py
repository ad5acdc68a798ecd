"""Wine from scikit-learn: 178 wines in three classes, 13 chemical measurements each."""

from functools import partial

from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.corruption import TABLE
from f3eo.bench.tasks.tabular import split
from f3eo.bench.tasks.task import Data, Task


def load() -> Data:
    """Half of the samples to train on, half to test, standardised."""
    from sklearn.datasets import load_wine  # imported here because it is slow

    return split(*load_wine(return_X_y=True), train=0.5)


TASK = Task(
    name="wine",
    description="scikit-learn's wine, 89 samples to train on and 89 to test; MLP 13-64-64-3",
    load=load,
    model=partial(mlp, 13, 64, 64, 3),
    splits=5,
    batch=32,
    budget=3_000,
    target=0.02,
    score="loss",  # accuracy is too coarse on so few samples
    corruptions=TABLE,
)

TASKS = (TASK,)
