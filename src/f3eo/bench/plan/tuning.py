"""The settings that tuning tries, drawn before the first run.

They depend on the names of task and method alone, so runs may happen in any order and resume after
a crash. The first setting is the method's default, its learning rate
times `Task.rates`. The others are points of a scrambled Sobol
sequence (optuna's QMCSampler) whose seed is a hash of the names. Every setting is scored on
held-out training samples, with seeds that no result uses: on one split, or on several where samples
are few (`Task.splits`).
"""

from functools import lru_cache
from typing import Any

from f3eo.bench.methods import METHODS
from f3eo.bench.plan.points import points
from f3eo.bench.plan.spaces import WRAPPERS, Space, space
from f3eo.bench.tasks import TASKS

SEED = 1000
"""Seed of a trial's first split; SEED + 1 is that of the second, and so on.

All methods share the splits. Results use the seeds 0, 1, …
"""


def draw(task: str, method: str, trials: int, base: str = "") -> list[dict[str, Any]]:
    """The settings of a method on a task, as changes to its defaults.

    More trials extend the list; the first settings stay the same.

    Args:
        task, method: names; they determine the seed of the sequence. A wrapper without options of
            its own to search takes the points of its base.
        trials: number of settings.
        base: base optimizer of a wrapper; default that of the task (`Task.base`).

    Raises:
        ValueError: the method has no search space.
    """
    base = base or TASKS[task].base
    searched, defaults = _space(task, method, base), METHODS[method].defaults
    if method in WRAPPERS and base != defaults["base"]:  # start from the rates of this base
        defaults = {**defaults, **METHODS[base].defaults}
    first = {name: defaults[name] for name in searched}
    first["lr"] *= TASKS[task].rates
    return [first, *map(dict, _points(task, method, base, trials)[1:])][:trials]


def _space(task: str, method: str, base: str) -> Space:
    return space(method, base, TASKS[task].decay, TASKS[task].rates)


@lru_cache
def _points(task: str, method: str, base: str, trials: int) -> list[dict[str, Any]]:
    name = base if method in WRAPPERS and not WRAPPERS[method] else method
    return points(_space(task, method, base), f"{task} {name}", trials)
