"""A run at the settings of its task, as comparisons and studies both plan it."""

from collections.abc import Mapping
from typing import Any

from f3eo.bench.run.place import PROCESSOR, Place
from f3eo.bench.run.run import Run
from f3eo.bench.tasks import Task


def planned(
    task: Task,
    method: str,
    budget: int,
    options: Mapping[str, Any],
    place: Place = PROCESSOR,
) -> Run:
    """A run with seed 0 and no price, at the task's batch size and measurements.

    Args:
        task: the task.
        method: name of the method.
        budget: cost of the run, in plain gradients.
        options: every hyper-parameter of the method.
        place: device and precision; default the processor and float32.
    """
    return Run(
        task=task.name,
        method=method,
        seed=0,
        budget=budget,
        batch=task.batch,
        options=options,
        evaluations=task.evaluations,
        probe=task.probe,
        device=place.device,
        precision=place.precision,
    )
