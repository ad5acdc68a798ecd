"""The registry of tasks: one data set per file, listed here by task name."""

from collections.abc import Mapping

from f3eo.bench.tasks import (
    breast_cancer,
    cifar10,
    digits,
    fashion,
    mnist1d,
    modular_addition,
    reviews,
    shakespeare,
    wine,
)
from f3eo.bench.tasks.task import Data, Samples, Task

TASKS: Mapping[str, Task] = {
    task.name: task
    for module in (
        digits,
        mnist1d,
        fashion,
        cifar10,
        shakespeare,
        reviews,
        modular_addition,
        wine,
        breast_cancer,
    )
    for task in module.TASKS
}

USUAL = ("digits-mlp", "mnist1d-mlp")
"""The default tasks of a comparison."""

__all__ = ["TASKS", "USUAL", "Data", "Samples", "Task"]
