"""The plan of a study: equal tuning, then fresh seeds at equal time, for all methods and tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from f3eo.bench.methods import METHODS
from f3eo.bench.methods.bases import over
from f3eo.bench.plan import tuning
from f3eo.bench.plan.checks import check_counts, check_folder, check_names, check_positive
from f3eo.bench.plan.runs import planned
from f3eo.bench.plan.spaces import BASES, TUNED, WRAPPERS
from f3eo.bench.plan.variants import (
    ABLATION,
    ABLATION_TASKS,
    SENSITIVITY,
    SENSITIVITY_SEEDS,
    SENSITIVITY_TASKS,
    Variant,
)
from f3eo.bench.run.place import resolved
from f3eo.bench.run.run import Run
from f3eo.bench.run.train import load
from f3eo.bench.tasks import TASKS

WHERE = (
    f"ablation varies f3eo and sam on {', '.join(ABLATION_TASKS)}; sensitivity varies f3eo over "
    f"sgd on {', '.join(SENSITIVITY_TASKS)}"
)
"""Methods and tasks of the parts other than results, for an error message."""

NAMES = (
    *("digits-mlp", "mnist1d-mlp", "mnist1d-cnn", "fashion-cnn", "fashion-cnn-noise40"),
    *("fashion-mlp", "large-batch", "cifar10-10k", "shakespeare-char", "modular-addition"),
    *("wine", "breast-cancer", "digits-few", "fashion-mlp-noise40"),
)
"""The tasks of the usual study; `reviews-minilm` needs an extra, and so is asked for by name."""
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
"""A small study: less than a quarter of an hour on two cores."""

CHOICES = ("usual", "best", *BASES)
"""Allowed names for `Study.base`."""

Options = Mapping[tuple[str, str], Mapping[str, Any]]
"""All options, by task and method."""


@dataclass(frozen=True)
class Study:
    """The plan of a study and the folder of its results; `USUAL` has the defaults.

    Args:
        name: name of the folder below `folder`; a second study of this name resumes the first.
        tasks: names of tasks.
        methods: names of methods; each needs a search space (`spaces.TUNED`).
        trials: number of settings tried per method and task.
        seeds: number of results per method and task, with seeds 0, 1, …
        scale: factor on every task's budget, above 0.
        parts: any of "results" of the methods, "ablation" and "sensitivity" of F3EO.
        base: base optimizer of methods that wrap one (`WRAPPERS`). "usual": that of the task
            (`Task.base`), SGD, or AdamW for transformers. "best": the one of SGD, AdamW and Muon
            that scores best on the task's held-out samples by itself. "sgd", "adamw" or "muon": on
            every task. Or a mapping from task to base; tasks it lacks take the usual one.
        workers: number of processes, with one torch thread each; default 2.
        device: "cpu", "cuda", "cuda:N", or "auto" for the GPU where there is one; default "cpu".
        folder: parent of the study's folder; default "runs".
        minutes: no run starts after this time; default None, no limit.
        command: the command line, stored in every row; default empty.

    Raises:
        ValueError: an unknown name, or a number out of range.
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
    device: str = "cpu"
    folder: Path = Path("runs")
    minutes: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        check_folder("study", self.name)
        resolved(self.device, "float32")
        check_names("task", self.tasks, TASKS)
        check_names("method", self.methods, dict.fromkeys(TUNED))
        check_names("part", self.parts, dict.fromkeys(PARTS))
        if isinstance(self.base, str):
            check_names("base", [self.base], dict.fromkeys(CHOICES))
        else:
            check_names("task", self.base, TASKS, may_be_empty=True)
            check_names("base", list(dict.fromkeys(self.base.values())), BASES, may_be_empty=True)
        check_counts(trials=self.trials, seeds=self.seeds, workers=self.workers)
        check_positive(scale=self.scale, minutes=self.minutes)

    @property
    def path(self) -> Path:
        """The folder of the study."""
        return self.folder / self.name

    def base_on(self, task: str) -> str:
        """The base optimizer that wrappers take on a task."""
        base = self.base if isinstance(self.base, str) else self.base.get(task, "usual")
        return TASKS[task].base if base == "usual" else base

    @property
    def defaults(self) -> Options:
        """The options of every method on every task before tuning."""
        return {
            (task, method): self.options(task, method, {})
            for task in self.tasks
            for method in self.methods
        }

    def trial_runs(self) -> list[Run]:
        """The runs of the tuning, trial by trial, without prices."""
        points = {
            (task, method): tuning.draw(task, method, self.trials, self.base_on(task))
            for task in self.tasks
            for method in self.methods
        }
        return [
            replace(
                self._run(task, method, self.options(task, method, drawn[n])),
                seed=tuning.SEED + split,
                split="validation",
                evaluations=5,  # enough to stop a run early once its loss is not finite
            )
            for n in range(self.trials)
            for (task, method), drawn in points.items()
            for split in range(TASKS[task].splits)
        ]

    def result_runs(self, chosen: Options) -> list[Run]:
        """The runs on the test set, without prices.

        They are ordered by seed, so that an early end leaves equal numbers of seeds. Variants that
        equal the tuned method are left out.

        Args:
            chosen: the tuned options.
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
            if (options := _variant_options(v, task, chosen)) != chosen[task, v.method]
        ]
        return [
            replace(run, seed=seed)
            for seed in range(self.seeds)
            for run, seeds in runs
            if seed < seeds
        ]

    def _variants(self) -> Iterator[tuple[str, str, Variant, int]]:
        """Part, task, variant and seeds of every variant whose methods are in the study."""
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
        """Parts without any run, given the tasks and methods."""
        active = {part for part, *_ in self._variants()}
        return [part for part in self.parts if part not in {"results", *active}]

    def options(self, task: str, method: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a method on a task: defaults, facts of the task and its base, and `own`.

        Args:
            task, method: names.
            own: options that replace the others.
        """
        return METHODS[method].options(facts(task, method, self.base_on(task)), own)

    def _run(self, task: str, method: str, options: Mapping[str, Any]) -> Run:
        budget = max(1, round(TASKS[task].budget * self.scale))
        place = resolved(self.device, "float32")
        return planned(TASKS[task], method, budget, options, place)


@lru_cache
def facts(task: str, method: str, base: str) -> dict[str, Any]:
    """Options that follow from task and base: `ess`, a wrapper's base and the base's momentum.

    Args:
        task, method: names.
        base: base optimizer of wrappers on the task.

    Returns:
        Options by name; `ess` is the number of training samples.
    """
    wrapped = over(base) if method in WRAPPERS else {}
    return wrapped | ({"ess": len(load(task).train.y)} if "ess" in METHODS[method].defaults else {})


def _variant_options(variant: Variant, task: str, chosen: Options) -> dict[str, Any]:
    """All options of a variant on a task, from the tuned options."""
    rates = chosen[task, variant.rates or variant.method]
    shared = {name: rates[name] for name in ("lr", "weight_decay")}
    return METHODS[variant.method].options(chosen[task, variant.method], shared, variant.options)
