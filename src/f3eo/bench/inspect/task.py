"""Checkpoints of the benchmark's tasks, made ready for inspection."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from f3eo import Categorical
from f3eo.bench.execute.checkpoint import read
from f3eo.bench.inspect.measure import Subject
from f3eo.bench.inspect.page import MODELS, inspect
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.checks import check_names
from f3eo.bench.run.train import load
from f3eo.bench.tasks import TASKS, Samples
from f3eo.bench.tasks.task import cross_entropy

BATCH = 100


def inspect_checkpoints(
    files: Sequence[Path], task: str | None, samples: int, page: Path, points: int
) -> None:
    """Inspect models of one task on its first training samples.

    Args:
        files: one or two checkpoints.
        task: name of the task; None takes it from the first file.
        samples: number of training samples, at least 2.
        page: file to write.
        points: of the landscape, see `f3eo.bench.inspect.page.inspect`.

    Raises:
        ValueError: too many files, no task, a task that is unknown or has another loss, a
            checkpoint that does not fit, or too few samples.
    """
    if not 1 <= len(files) <= MODELS:
        raise ValueError(f"a page shows 1 or {MODELS} checkpoints, received {len(files)}")
    if samples < 2:
        raise ValueError(f"samples must be at least 2, received {samples}")
    checkpoints = [read(file) for file in files]
    name = task or next((str(c.facts["task"]) for c in checkpoints if "task" in c.facts), None)
    if name is None:
        raise ValueError(f"{files[0]} does not say its task: name it with --task")
    check_names("task", [name], TASKS)
    if TASKS[name].loss is not cross_entropy:
        raise ValueError(
            f"the loss of {name} is no cross-entropy: use f3eo.bench.inspect.page.inspect"
        )
    train = load(name).train
    chosen = Samples(train.x[:samples], train.y[:samples])
    subjects = []
    for file, checkpoint in zip(files, checkpoints, strict=True):
        model = TASKS[name].seeded_model(0)
        checkpoint.into(model, file, name)
        model.eval()

        def closure(x: Tensor, y: Tensor, model: torch.nn.Module = model) -> Categorical:
            return Categorical(model(x), y)

        subjects.append(
            Subject(_label(file, checkpoint.facts), model, closure, model, checkpoint.path)
        )
    inspect(
        subjects,
        list(zip(chosen.x.split(BATCH), chosen.y.split(BATCH), strict=True)),
        page,
        title=name,
        description=TASKS[name].description + ".",
        points=points,
        pictures=_pictures(chosen.x),
    )


def _label(file: Path, facts: Mapping[str, Any]) -> str:
    if facts.get("method") in METHODS:
        return f"{METHODS[facts['method']].label}, seed {facts.get('seed')}"
    return file.stem


def _pictures(x: Tensor) -> Callable[[int], Tensor | None]:
    """Index -> the sample as a picture in [0, 1]: (N, C, H, W) with one or three channels."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return lambda index: None
    low, high = x.amin((0, 2, 3), keepdim=True)[0], x.amax((0, 2, 3), keepdim=True)[0]

    def picture(index: int) -> Tensor:
        scaled = (x[index] - low) / (high - low)
        return scaled[0] if len(scaled) == 1 else scaled.movedim(0, -1)

    return picture
