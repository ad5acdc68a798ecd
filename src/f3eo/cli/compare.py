"""`f3eo compare`."""

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.plan.compare import Comparison
from f3eo.bench.plan.compare import compare as carry_out
from f3eo.bench.report.standings import EQUALS
from f3eo.bench.run.run import Equal
from f3eo.bench.tasks import TASKS
from f3eo.bench.tasks import USUAL as USUAL_TASKS
from f3eo.cli.app import ALL, Device, InPrecision, Output, app, tell_end, tell_failures, typed

TASK_NAMES = f"Tasks, from: {' '.join(TASKS)}."
KINDS = "(default: cost; with --methods all cost time)"
BUDGETS, TUNED = "(default: each task's own, at most 1250)", "(default: the tuned values)"


@app.command
def compare(
    name: Annotated[str, arg(metavar="NAME")] = "compare",
    tasks: Annotated[
        tuple[str, ...], arg(metavar="TASK ...", aliases=["--task"], help=TASK_NAMES)
    ] = USUAL_TASKS,
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD ...")] = USUAL,
    seeds: Annotated[int, arg(metavar="N")] = 3,
    budget: Annotated[int | None, arg(metavar="N", help_behavior_hint=BUDGETS)] = None,
    equal: Annotated[tuple[Equal, ...], arg(metavar="KIND ...", help_behavior_hint=KINDS)] = (),
    set: Annotated[tuple[str, ...], arg(metavar="M.OPTION=X ...", help_behavior_hint=TUNED)] = (),
    workers: Annotated[int, arg(metavar="N")] = 2,
    device: Device = "cpu",
    precision: InPrecision = "float32",
    folder: Annotated[Path, arg(metavar="PATH")] = Path("runs"),
    keep: bool = False,
) -> int:
    """Train a small model with several optimizers at equal cost and write a report.

    Every method may spend the same number of plain gradients, or the same time. The report is
    FOLDER/NAME/report.html, one page that needs no network; its rows are in results.jsonl beside
    it. The defaults take at most three minutes on two cores. Ctrl-C keeps finished runs; the same
    command resumes.

    Args:
        name: Name of the comparison, a folder below --folder. An existing one resumes.
        tasks: Names of tasks.
        methods: Methods, by the names that `f3eo methods` lists, or all for every one of them.
        seeds: Runs per method and task, one per seed; at least 1.
        budget: Cost of a run, in plain gradients, or its time, in plain gradient steps; at least 1.
        equal: What every method spends equally: cost, time, or both in separate runs.
        set: Hyper-parameters, e.g. sgd.lr=0.1 f3eo.strength=cap f3eo.value=0.03.
        workers: Number of processes, one torch thread each; at least 1.
        folder: Folder that holds the comparisons.
        keep: Keep the model of every run that is trained now, with its path, in
            FOLDER/NAME/models/TASK-METHOD-SEED.pt, for f3eo inspect.
    """
    console = Output()
    comparison = Comparison(
        name=name,
        tasks=tasks,
        methods=tuple(METHODS) if methods == (ALL,) else methods,
        seeds=seeds,
        budget=budget,
        equal=equal or (EQUALS if methods == (ALL,) else ("cost",)),
        overrides=_overrides(set),
        workers=workers,
        device=device,
        precision=precision,
        folder=folder,
        keep=keep,
        command=typed(),
    )
    outcome = carry_out(comparison, console)
    tell_failures(console, outcome.rows)
    if outcome.rows:
        console.print(f"Report: {comparison.report}", soft_wrap=True)
    return tell_end(console, outcome.missing, outcome.failure)


def _overrides(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Parse `("sgd.lr=0.1", "f3eo.rule=direct")` to `{"sgd": {"lr": 0.1}, "f3eo": {"rule": …}}`.

    Raises:
        ValueError: a text has another form, or a hyper-parameter is given twice.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, option = name.partition(".")
        if not (equals and dot and method and option):
            raise ValueError(f"--set takes METHOD.OPTION=VALUE, e.g. sgd.lr=0.1, got {text!r}")
        if option in overrides.setdefault(method, {}):
            raise ValueError(f"--set has {method}.{option} twice; give it once")
        overrides[method][option] = _value(value)
    return overrides


def _value(text: str) -> Any:
    """A number, or a name with or without quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")
