"""`f3eo tune` and `f3eo bench`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from f3eo.bench.plan import tuning
from f3eo.bench.plan.spaces import WRAPPERS
from f3eo.bench.plan.study import CHOICES, QUICK, USUAL, WHERE, Study
from f3eo.bench.plan.study import bench as carry_out_bench
from f3eo.bench.plan.study import tune as carry_out_tune
from f3eo.cli.app import Output, app, tell_end, tell_failures, typed


def _hint(name: str) -> str:
    def text(value: Any) -> str:
        return " ".join(value) if isinstance(value, tuple) else str(value)

    return f"(default: {text(USUAL[name])}; with --quick {text(QUICK[name])})"


Name = Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_hint("name"))]
Tasks = Annotated[
    tuple[str, ...],
    arg(metavar="TASK ...", aliases=["--task"], help_behavior_hint=_hint("tasks")),
]
Methods = Annotated[tuple[str, ...], arg(metavar="METHOD ...", help_behavior_hint=_hint("methods"))]
Trials = Annotated[int | None, arg(metavar="N", help_behavior_hint=_hint("trials"))]
Seeds = Annotated[int | None, arg(metavar="N", help_behavior_hint=_hint("seeds"))]
Scale = Annotated[float | None, arg(metavar="X", help_behavior_hint=_hint("scale"))]
Base = Annotated[
    Literal["usual", "best", "sgd", "adamw", "muon"] | None,
    arg(metavar="|".join(CHOICES), help_behavior_hint=_hint("base")),
]
Only = Annotated[tuple[str, ...], arg(metavar="PART ...", help_behavior_hint=_hint("parts"))]
Minutes = Annotated[float | None, arg(metavar="M", help_behavior_hint="(default: no limit)")]


@app.command
def tune(
    name: Name = None,
    tasks: Tasks = (),
    methods: Methods = (),
    trials: Trials = None,
    scale: Scale = None,
    base: Base = None,
    workers: Annotated[int, arg(metavar="N")] = 2,
    folder: Annotated[Path, arg(metavar="PATH")] = Path("runs"),
    minutes: Minutes = None,
    quick: bool = False,
) -> int:
    """Search hyper-parameters, as many settings of every method on every task.

    Settings are drawn before the first run from one table of ranges, judged on held-out training
    samples, and given the same time, each step at its measured price. Rows are in
    FOLDER/NAME/trials.jsonl and trials.parquet; `f3eo bench` of the same name uses them. Ctrl-C
    keeps what is finished, and the same command goes on from there.

    Args:
        name: What to call the study; a name used before resumes.
        tasks: What to train on.
        methods: What to train with.
        trials: Settings of each method on each task, its defaults among them.
        scale: Factor on the budget of every task.
        base: What sharpness-aware methods and F3EO wrap: the usual of each task, SGD, or AdamW for
            transformers; the best there by itself, on held-out samples, of SGD, AdamW and Muon; or
            one of these.
        workers: Processes side by side, one thread each.
        folder: Where studies are kept.
        minutes: After so many no further run is begun.
        quick: The small study instead of the large one, where nothing else is said.
    """
    study = _study(
        quick, workers, folder, minutes, name, tasks, methods, trials, None, scale, base, ()
    )
    console = Output()
    outcome = carry_out_tune(study, console)
    for task in study.tasks:
        console.print(tuning.table(task, study.methods, outcome.trials))
    tell_failures(console, outcome.trials)
    return tell_end(console, outcome.missing, outcome.failure)


@app.command
def bench(
    name: Name = None,
    tasks: Tasks = (),
    methods: Methods = (),
    trials: Trials = None,
    seeds: Seeds = None,
    scale: Scale = None,
    base: Base = None,
    only: Only = (),
    workers: Annotated[int, arg(metavar="N")] = 2,
    folder: Annotated[Path, arg(metavar="PATH")] = Path("runs"),
    minutes: Minutes = None,
    quick: bool = False,
) -> int:
    """Run every method at its best settings on fresh seeds and the test set, for the same time.

    What `f3eo tune` has not tuned under this name is tuned first. Every step counts at its price,
    measured once per task with all methods beside each other, so that cheap methods get more steps.
    Rows are in FOLDER/NAME/results.jsonl and results.parquet. All of it takes about nine hours
    on two cores, with --quick less than a quarter of an hour. Ctrl-C keeps what is finished, and
    the same command goes on from there.

    Args:
        name: What to call the study; a name used before resumes.
        tasks: What to train on.
        methods: What to train with.
        trials: Settings tried of each method on each task.
        seeds: Results of each method on each task.
        scale: Factor on the budget of every task.
        base: What sharpness-aware methods and F3EO wrap: the usual of each task, SGD, or AdamW for
            transformers; the best there by itself, on held-out samples, of SGD, AdamW and Muon; or
            one of these.
        only: Parts to do: the results of the methods, and the ablation and sensitivity of F3EO.
        workers: Processes side by side, one thread each.
        folder: Where studies are kept.
        minutes: After so many no further run is begun.
        quick: The small study instead of the large one, where nothing else is said.
    """
    study = _study(
        quick, workers, folder, minutes, name, tasks, methods, trials, seeds, scale, base, only
    )
    console = Output()
    outcome = carry_out_bench(study, console)
    tell_failures(console, [*outcome.trials, *outcome.results])
    if outcome.results:
        console.print(f"Results: {study.path}", soft_wrap=True)
    return tell_end(console, outcome.missing, outcome.failure)


def _study(quick: bool, workers: int, folder: Path, minutes: float | None, *given: Any) -> Study:
    """The usual study, or the quick one, with what was given instead."""
    names = ("name", "tasks", "methods", "trials", "seeds", "scale", "base", "parts")
    chosen = {n: value for n, value in zip(names, given, strict=True) if value not in (None, ())}
    settings = {**(QUICK if quick else USUAL), **chosen}
    study = Study(**settings, workers=workers, folder=folder, minutes=minutes, command=typed())
    if chosen.get("base", "usual") != "usual" and not set(study.methods) & set(WRAPPERS):
        raise ValueError(
            f"--base {study.base} has no effect: none of the methods wraps a base; add one of "
            f"{', '.join(WRAPPERS)}"
        )
    if "parts" in chosen and study.idle_parts:
        raise ValueError(f"--only {study.idle_parts[0]} has no effect: {WHERE}")
    return study
