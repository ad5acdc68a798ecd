"""A study: methods tuned alike, then run on fresh seeds, all for the same time, on every task."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from f3eo.bench.execute import disk
from f3eo.bench.execute.resume import Carried, carry_out
from f3eo.bench.execute.store import Store
from f3eo.bench.methods import METHODS
from f3eo.bench.methods.bases import over
from f3eo.bench.plan import tuning
from f3eo.bench.plan.given import check_counts, check_folder, check_names
from f3eo.bench.plan.spaces import BASES, TUNED, WRAPPERS, space
from f3eo.bench.plan.variants import (
    ABLATION,
    ABLATION_TASKS,
    SENSITIVITY,
    SENSITIVITY_SEEDS,
    SENSITIVITY_TASKS,
    Variant,
)
from f3eo.bench.price.prices import prices, step_kind
from f3eo.bench.run.row import Row
from f3eo.bench.run.run import Run
from f3eo.bench.run.train import load
from f3eo.bench.tasks import TASKS

WHERE = (
    f"ablation is of f3eo and its bases on {', '.join(ABLATION_TASKS)}, sensitivity on "
    f"{', '.join(SENSITIVITY_TASKS)}"
)
"""What parts other than results ask for."""
ASKED = "move it away: it then says what this command asks for, and nothing of those before"
"""What to do about a damaged study.json."""

NAMES = (
    *("digits-mlp", "mnist1d-mlp", "mnist1d-cnn", "fashion-cnn", "fashion-cnn-noise40"),
    *("fashion-mlp", "large-batch", "cifar10-10k", "shakespeare-char", "modular-addition"),
    *("wine", "breast-cancer"),
)
PARTS = ("results", "ablation", "sensitivity")

USUAL: Mapping[str, Any] = {
    "name": "study",
    "tasks": NAMES,
    "methods": TUNED,
    "trials": 8,
    "seeds": 10,
    "scale": 1.0,
    "base": "best",
    "parts": PARTS,
}
QUICK: Mapping[str, Any] = {
    "name": "quick",
    "tasks": ("digits-mlp", "mnist1d-mlp", "breast-cancer"),
    "methods": ("sgd", "adamw", "muon", "sam", "f3eo"),
    "trials": 4,
    "seeds": 5,
    "scale": 0.25,
    "base": "usual",
    "parts": ("results",),
}
"""Ends within a quarter of an hour on two cores."""

CHOICES = ("usual", "best", *BASES)
"""What `Study.base` may be called."""

Chosen = Mapping[tuple[str, str], Mapping[str, Any]]
"""All options by task and method, as tuned."""


@dataclass(frozen=True)
class Study:
    """What is asked, and where it is kept; `USUAL` has the defaults.

    Args:
        name: the folder below `folder`; a second study of this name resumes.
        tasks, methods: names; every method needs a search space.
        trials: settings tried of each method on each task.
        seeds: results of each method on each task, with seeds 0, 1, …
        scale: factor on every task's budget.
        parts: "results" of the methods, "ablation" and "sensitivity" of F3EO.
        base: what sharpness-aware methods and F3EO wrap: "usual", SGD, or AdamW for transformers
            (`Task.base`); "best", the one of SGD, AdamW and Muon that by itself is best on a task's
            held-out samples; one of them by name; or one by task, the usual where none is named.
        workers: processes, with one torch thread each.
        folder: parent of the study's folder.
        minutes: after so many no further run is begun; None is never.
        command: what was typed, for the record.

    Raises:
        ValueError: a name nobody knows, a number out of range.
    """

    name: str
    tasks: Sequence[str]
    methods: Sequence[str]
    trials: int
    seeds: int
    scale: float
    parts: Sequence[str]
    base: str | Mapping[str, str]
    workers: int = 2
    folder: Path = Path("runs")
    minutes: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        check_folder("study", self.name)
        check_names("task", self.tasks, TASKS)
        check_names("method", self.methods, dict.fromkeys(TUNED))
        check_names("part", self.parts, dict.fromkeys(PARTS))
        if isinstance(self.base, str):
            check_names("base", [self.base], dict.fromkeys(CHOICES))
        else:
            check_names("task", self.base, TASKS, may_be_empty=True)
            check_names("base", list(dict.fromkeys(self.base.values())), BASES, may_be_empty=True)
        check_counts(trials=self.trials, seeds=self.seeds, workers=self.workers)
        for name in ("scale", "minutes"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a positive number, got {value}")

    @property
    def path(self) -> Path:
        """The folder of this study."""
        return self.folder / self.name

    def base_on(self, task: str) -> str:
        """What is wrapped on a task."""
        base = self.base if isinstance(self.base, str) else self.base.get(task, "usual")
        return TASKS[task].base if base == "usual" else base

    def trial_runs(self) -> list[Run]:
        """The runs of the tuning, without prices; trial by trial."""
        drawn = {
            (task, method): tuning.draw(task, method, self.trials, self.base_on(task))
            for task in self.tasks
            for method in self.methods
        }
        return [
            replace(
                self._run(task, method, self.options(task, method, points[n])),
                seed=tuning.SEED + part,
                split="validation",
                evaluations=5,  # enough to leave early where the loss is no number any more
            )
            for n in range(self.trials)
            for (task, method), points in drawn.items()
            for part in range(TASKS[task].splits)
        ]

    def result_runs(self, chosen: Chosen) -> list[Run]:
        """The runs on the test set, without prices; seed by seed, so that an early end is fair.

        A variant that is what was tuned is left out.
        """
        runs = [
            (self._run(task, method, chosen[task, method]), self.seeds)
            for task in self.tasks
            for method in self.methods
            if "results" in self.parts
        ]
        runs += [
            (replace(self._run(task, v.method, options), variant=v.label), seeds)
            for _, task, v, seeds in self._variants()
            if (options := _options(v, task, chosen)) != chosen[task, v.method]
        ]
        return [
            replace(run, seed=seed)
            for seed in range(self.seeds)
            for run, seeds in runs
            if seed < seeds
        ]

    def _variants(self) -> Iterator[tuple[str, str, Variant, int]]:
        """Part, task, variant, number of seeds; without those whose methods are not tuned here."""
        parts = (
            ("ablation", ABLATION_TASKS, ABLATION, self.seeds),
            ("sensitivity", SENSITIVITY_TASKS, SENSITIVITY, min(self.seeds, SENSITIVITY_SEEDS)),
        )
        for part, tasks, variants, seeds in parts:
            for task in tasks if part in self.parts else ():
                for variant in variants if task in self.tasks else ():
                    if variant.needs <= set(self.methods):
                        yield part, task, variant, seeds

    @property
    def idle_parts(self) -> list[str]:
        """Those of its parts that have nothing to do on its tasks with its methods."""
        doing = {part for part, *_ in self._variants()}
        return [part for part in self.parts if part not in {"results", *doing}]

    def options(self, task: str, method: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a method on a task: what is known of the task and its base, and `own`."""
        return METHODS[method].options(facts(task, method, self.base_on(task)), own)

    def _run(self, task: str, method: str, options: Mapping[str, Any]) -> Run:
        of = TASKS[task]
        return Run(
            task=task,
            method=method,
            seed=0,
            budget=max(1, round(of.budget * self.scale)),
            batch=of.batch,
            options=options,
            evaluations=of.evaluations,
            probe=of.probe,
        )


@dataclass(frozen=True)
class Outcome:
    """How a study, or a part of it, ended.

    Attributes:
        trials, results: its rows, earlier ones included.
        missing: runs that are still to be done.
        failure: the error of the last run if all of its last part failed, else None.
    """

    trials: list[Row]
    results: list[Row]
    missing: int
    failure: str | None


def tune(study: Study, console: Console) -> Outcome:
    """Time the methods and try their settings on held-out samples; what is there is not repeated.

    Ctrl-C, or the end of its minutes, ends it in order: every finished run is kept.
    """
    return _tuned(study, console, _deadline(study))[1]


def bench(study: Study, console: Console) -> Outcome:
    """Tune what is not tuned yet, then run the best settings on the test set.

    Ctrl-C, or the end of its minutes, ends it in order: every finished run is kept.
    """
    deadline = _deadline(study)
    study, tuned, price = _tuned(study, console, deadline)
    if tuned.missing:  # what is best is not known yet
        return tuned
    runs = study.result_runs(choose(study, tuned.trials))
    results = _carry_out(study, "results", runs, console, deadline, price)
    return Outcome(tuned.trials, results.rows, results.missing, results.failure)


def settle(study: Study, rows: Sequence[Row]) -> Study:
    """The study with, on each task, the base that is best by itself on held-out samples.

    Args:
        study: gives the tasks.
        rows: trials of the bases, on all of them.
    """

    def best(task: str) -> str | None:
        found = {
            name: tuning.best(task, [r for r in rows if (r["task"], r["method"]) == (task, name)])
            for name in BASES
        }
        finished = {name: setting for name, setting in found.items() if setting}
        return min(finished, key=lambda name: tuning.rank(task, finished[name]), default=None)

    known = {task: best(task) for task in study.tasks}
    return replace(study, base={task: base for task, base in known.items() if base})


def choose(study: Study, rows: Sequence[Row]) -> Chosen:
    """The best options by task and method; where no trial finished, the defaults.

    Args:
        study: gives tasks and methods.
        rows: its trials.
    """
    chosen = dict(_defaults(study))
    for task, method in chosen:
        own = [row for row in rows if (row["task"], row["method"]) == (task, method)]
        if found := tuning.best(task, own):
            chosen[task, method] = found.options
    return chosen


@lru_cache
def facts(task: str, method: str, base: str) -> dict[str, Any]:
    """Options that are no matter of taste: number of training samples (`ess`), and what is wrapped.

    A wrapper takes the momentum that is its base's own default, too.
    """
    wrapped = over(base) if method in WRAPPERS else {}
    return wrapped | ({"ess": len(load(task).train.y)} if "ess" in METHODS[method].defaults else {})


def _defaults(study: Study) -> Chosen:
    return {
        (task, method): study.options(task, method, {})
        for task in study.tasks
        for method in study.methods
    }


def _options(variant: Variant, task: str, chosen: Chosen) -> dict[str, Any]:
    """A variant's options on a task."""
    rates = chosen[task, variant.rates or variant.method]
    shared = {name: rates[name] for name in ("lr", "weight_decay")}
    return METHODS[variant.method].options(chosen[task, variant.method], shared, variant.options)


def _prices(study: Study, console: Console) -> dict[str, float]:
    """What each kind of step takes, measured before all runs, those of a task side by side."""
    _write_down(study)
    everything = dict.fromkeys(("results", *study.parts))
    kinds = replace(study, parts=tuple(everything), seeds=1).result_runs(_defaults(study))
    return prices(kinds, study.path / "prices.json", console.print)


def _tuned(
    study: Study, console: Console, deadline: float
) -> tuple[Study, Outcome, dict[str, float]]:
    """The study with its bases settled, its trials, and the prices of all its steps."""
    if study.base == "best" and set(study.methods) & set(WRAPPERS):
        alone = replace(study, methods=tuple(BASES), base="usual", parts=("results",))
        trials = _tune(alone, console, deadline, _prices(alone, console))
        if trials.missing:
            return study, Outcome(trials.rows, [], trials.missing, trials.failure), {}
        study = settle(study, trials.rows)
    price = _prices(study, console)
    trials = _tune(study, console, deadline, price)
    return study, Outcome(trials.rows, [], trials.missing, trials.failure), price


def _tune(study: Study, console: Console, deadline: float, price: Mapping[str, float]) -> Carried:
    return _carry_out(study, "trials", study.trial_runs(), console, deadline, price)


def _carry_out(
    study: Study,
    name: str,
    runs: Sequence[Run],
    console: Console,
    deadline: float,
    price: Mapping[str, float],
) -> Carried:
    """The runs at their prices, kept as lines and, at the end, as a table."""
    priced = [replace(run, price=price[step_kind(run)]) for run in runs]
    store = Store(study.path, name)
    how = {"workers": study.workers, "command": study.command, "deadline": deadline}
    carried = carry_out(priced, store, console, **how)
    store.compact(carried.rows)
    return carried


def _deadline(study: Study) -> float:
    return math.inf if study.minutes is None else time.monotonic() + 60 * study.minutes


def _write_down(study: Study) -> None:
    """`study.json`: what was asked, beside the tasks, methods and parts asked for before."""
    path = study.path / "study.json"
    disk.prepare(study.path)
    before = disk.read_json(path, ASKED, check_asked)
    names = ("name", "trials", "seeds", "scale", "command")
    asked: dict[str, Any] = {name: getattr(study, name) for name in names}
    for name in ("parts", "methods"):
        asked[name] = list(dict.fromkeys([*before.get(name, ()), *getattr(study, name)]))
    asked["tasks"] = before.get("tasks", {}) | {
        name: _described(study, name) for name in study.tasks
    }
    bases = dict.fromkeys(task["base"] for task in asked["tasks"].values() if "base" in task)
    asked["spaces"] = {
        f"{method} over {base}" if method in WRAPPERS else method: {
            option: [d.low, d.high] for option, d in space(method, base).items()
        }
        for method in asked["methods"]
        for base in (bases if method in WRAPPERS else ("sgd",))
    }
    disk.write(path, json.dumps(asked, indent=1) + "\n")


def check_asked(found: Mapping[str, Any]) -> None:
    """Refuse what `study.json` cannot hold.

    Raises:
        TypeError, AttributeError: with what it was taken for.
    """
    for entries in found.get("tasks", {}).values():
        entries.items()
    for names in (found.get("parts", ()), found.get("methods", ())):
        "".join(names)
    found.get("spaces", {}).items()
    int(found.get("seeds", 0))


def _described(study: Study, name: str) -> dict[str, Any]:
    entries = ("description", "batch", "budget", "score", "target")
    known = {entry: getattr(TASKS[name], entry) for entry in entries}
    return known | {"base": study.base_on(name)}
