"""Wine from scikit-learn: 178 wines of three growers, by 13 chemical measurements."""

from functools import partial

from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.tabular import split
from f3eo.bench.tasks.task import Data, Task


def load() -> Data:
    """Half to train on, half to test, standardised."""
    from sklearn.datasets import load_wine  # here: slow, and not every run needs it

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
    score="loss",  # a continuous one: accuracy goes by whole samples, of which there are few
)

TASKS = (TASK,)
