"""The tasks the benchmark knows, by name: one file each, listed here."""

from collections.abc import Mapping

from f3eo.bench.tasks import digits, mnist1d
from f3eo.bench.tasks.task import Data, Samples, Task

TASKS: Mapping[str, Task] = {module.TASK.name: module.TASK for module in (digits, mnist1d)}

__all__ = ["TASKS", "Data", "Samples", "Task"]
