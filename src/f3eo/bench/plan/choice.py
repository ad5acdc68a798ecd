"""The choice that follows the trials: the best settings of a method, the best base of a task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from f3eo.bench.methods import label
from f3eo.bench.plan.spaces import BASES, space
from f3eo.bench.plan.study import Options, Study
from f3eo.bench.run.row import Row
from f3eo.bench.tasks import TASKS


class Setting(NamedTuple):
    """Options and their mean accuracy and loss over the splits."""

    options: Mapping[str, Any]
    accuracy: float
    loss: float


def choose_options(study: Study, trials: Sequence[Row]) -> Options:
    """The best options by task and method; the defaults where no trial finished.

    Args:
        study: gives tasks and methods.
        trials: rows of its trials.
    """
    chosen = dict(study.defaults)
    for task, method in chosen:
        if setting := best(task, _of(trials, task, method)):
            chosen[task, method] = setting.options
    return chosen


def choose_bases(study: Study, trials: Sequence[Row]) -> Study:
    """The study with the best base of each task; the usual one where no trial finished.

    Args:
        study: gives the tasks.
        trials: rows of the bases' own trials, on all of them.
    """
    chosen = {}
    for task in study.tasks:
        settings = {base: best(task, _of(trials, task, base)) for base in BASES}
        ranks = {base: rank(task, setting) for base, setting in settings.items() if setting}
        if ranks:
            chosen[task] = min(ranks, key=ranks.__getitem__)
    return replace(study, base=chosen)


def best(task: str, rows: Sequence[Row]) -> Setting | None:
    """The setting with the best mean final score over the splits; the loss decides ties.

    Args:
        task: name of the task.
        rows: trials of one method; settings that diverged or failed on a split are ignored.

    Returns:
        None if no setting finished on all splits.
    """
    trials: dict[str, list[Row]] = {}
    for row in rows:
        trials.setdefault(json.dumps(row["config"]["options"], sort_keys=True), []).append(row)
    finished = [s for s in trials.values() if all(row["status"] == "finished" for row in s)]
    return min(map(_average, finished), key=lambda setting: rank(task, setting), default=None)


def rank(task: str, setting: Setting) -> tuple[float, float]:
    """A sort key: the better setting has the smaller one."""
    accuracy = round(setting.accuracy, 9) if TASKS[task].score == "accuracy" else 0.0
    return (-accuracy, setting.loss)


def table(task: str, methods: Sequence[str], rows: Sequence[Row]) -> Table:
    """The best options of every method on a task, as a table for the terminal.

    Args:
        task: name of the task.
        methods: names of methods.
        rows: trials.
    """
    score = TASKS[task].score
    grid = Table(box=box.SIMPLE_HEAD, title=f"{task}, tuned", title_justify="left")
    for name in ("method", "options", f"validation {score}", "trials", "lost"):
        grid.add_column(
            name, justify="left" if name in ("method", "options") else "right", overflow="fold"
        )
    for method in methods:
        own = _of(rows, task, method)
        setting = best(task, own)
        options = setting.options if setting else {}
        value = f"{getattr(setting, score):.4f}" if setting else "none finished"
        grid.add_row(
            label(method),
            ", ".join(f"{name} {options[name]:.3g}" for name in space(method) if setting),
            value,
            str(len(own)),
            str(sum(row["status"] != "finished" for row in own)),
        )
    return grid


def _average(rows: Sequence[Row]) -> Setting:
    """Mean accuracy and loss of one setting over its splits."""
    accuracy = fmean(row["final"]["test_accuracy"] for row in rows)
    loss = fmean(row["final"]["test_loss"] for row in rows)
    return Setting(rows[0]["config"]["options"], accuracy, loss)


def _of(rows: Sequence[Row], task: str, method: str) -> list[Row]:
    """The rows of one method on one task."""
    return [row for row in rows if (row["task"], row["method"]) == (task, method)]
