"""The search for hyper-parameters: trials drawn up front, and the best of them.

All trials of a task and method are known before the first is carried out, so that they run in any
order and go on after a crash: the method's defaults, then points of a scrambled Sobol sequence
(optuna's QMCSampler) from a seed that follows from the names. They are judged on held-out training
samples, with seeds that no result uses: one split, or the mean over a few where samples are few
(`Task.splits`).
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any, NamedTuple

import optuna
from rich import box
from rich.table import Table

from f3eo.bench.methods import METHODS, label
from f3eo.bench.plan.spaces import WRAPPERS, Space, space
from f3eo.bench.run.row import Row
from f3eo.bench.tasks import TASKS

SEED = 1000
"""Of a trial's first split, SEED + 1 of its second …: all methods see the same samples held out.
Results use 0, 1, …"""


class Setting(NamedTuple):
    """Options that were tried, and their mean accuracy and loss over the splits."""

    options: Mapping[str, Any]
    accuracy: float
    loss: float


def draw(task: str, method: str, trials: int, base: str = "") -> list[dict[str, Any]]:
    """The trials of a method on a task, as changes to its defaults.

    The first few do not depend on how many there are.

    Args:
        task, method: names; they decide on the seed of the sequence. A wrapper with nothing of its
            own to search has the points of its base.
        trials: how many.
        base: what it wraps, if it wraps one; default the usual one on the task.

    Raises:
        ValueError: a method without a search space.
    """
    of = base or TASKS[task].base
    searched, defaults = _space(task, method, of), METHODS[method].defaults
    if method in WRAPPERS and of != defaults["base"]:  # its rates are no other's
        defaults = {**defaults, **METHODS[of].defaults}
    first = {name: defaults[name] for name in searched}
    return [first, *map(dict, _points(task, method, of, trials)[1:])][:trials]


def _space(task: str, method: str, base: str) -> Space:
    return space(method, base, TASKS[task].decay)


@lru_cache
def _points(task: str, method: str, base: str, trials: int) -> list[Mapping[str, float]]:
    """Points of the sequence, with three digits; the first only tells optuna of the space."""
    name = base if method in WRAPPERS and not WRAPPERS[method] else method
    seed = int(hashlib.sha256(f"{task} {name}".encode()).hexdigest()[:8], 16)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=seed)
        study, points = optuna.create_study(sampler=sampler), []
        for _ in range(trials):
            trial = study.ask(dict(_space(task, method, base)))
            study.tell(trial, 0.0)
            points.append({option: float(f"{x:.3g}") for option, x in trial.params.items()})
    finally:
        optuna.logging.set_verbosity(verbosity)
    return points


def best(task: str, rows: Sequence[Row]) -> Setting | None:
    """The setting with the best final score; the loss decides between equal accuracies.

    Args:
        task: name of the task.
        rows: trials of one method; settings that diverged or failed on a split do not count.

    Returns:
        None where none finished.
    """
    tried: dict[str, list[Row]] = {}
    for row in rows:
        tried.setdefault(json.dumps(row["config"]["options"], sort_keys=True), []).append(row)

    def judged(same: Sequence[Row]) -> Setting:
        ends = [row["final"] for row in same]
        accuracy, loss = (
            fmean(end[f"test_{name}"] for end in ends) for name in Setting._fields[1:]
        )
        return Setting(same[0]["config"]["options"], accuracy, loss)

    finished = [s for s in tried.values() if all(row["status"] == "finished" for row in s)]
    return min(map(judged, finished), key=lambda setting: rank(task, setting), default=None)


def rank(task: str, setting: Setting) -> tuple[float, float]:
    """What is smaller for the better setting."""
    accuracy = round(setting.accuracy, 9) if TASKS[task].score == "accuracy" else 0.0
    return (-accuracy, setting.loss)


def table(task: str, methods: Sequence[str], rows: Sequence[Row]) -> Table:
    """What was found on a task, for the terminal: best options, their score, what was lost."""
    score = TASKS[task].score
    grid = Table(box=box.SIMPLE_HEAD, title=f"{task}, tuned", title_justify="left")
    for name in ("method", "options", f"validation {score}", "trials", "lost"):
        grid.add_column(
            name, justify="left" if name in ("method", "options") else "right", overflow="fold"
        )
    for method in methods:
        own = [row for row in rows if (row["task"], row["method"]) == (task, method)]
        found = best(task, own)
        options = found.options if found else {}
        value = f"{getattr(found, score):.4f}" if found else "none finished"
        grid.add_row(
            label(method),
            ", ".join(f"{name} {options[name]:.3g}" for name in space(method) if found),
            value,
            str(len(own)),
            str(sum(row["status"] != "finished" for row in own)),
        )
    return grid
