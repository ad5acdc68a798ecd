"""`f3eo compare`."""

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.plan.compare import Comparison
from f3eo.bench.plan.compare import compare as carry_out
from f3eo.bench.report.ranking import EQUALS
from f3eo.bench.run.run import Equal
from f3eo.bench.tasks import USUAL as USUAL_TASKS
from f3eo.cli.app import ALL, Output, app, tell_end, tell_failures, typed

BOTH = "(default: cost; with all methods both)"
OWN, NONE = "(default: each task's own, at most 2500)", "(default: tuned)"


@app.command
def compare(
    name: Annotated[str, arg(metavar="NAME")] = "compare",
    tasks: Annotated[tuple[str, ...], arg(metavar="TASK ...", aliases=["--task"])] = USUAL_TASKS,
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD ...")] = USUAL,
    seeds: Annotated[int, arg(metavar="N")] = 3,
    budget: Annotated[int | None, arg(metavar="N", help_behavior_hint=OWN)] = None,
    equal: Annotated[tuple[Equal, ...], arg(metavar="KIND ...", help_behavior_hint=BOTH)] = (),
    set: Annotated[tuple[str, ...], arg(metavar="M.OPTION=X ...", help_behavior_hint=NONE)] = (),
    workers: Annotated[int, arg(metavar="N")] = 2,
    folder: Annotated[Path, arg(metavar="PATH")] = Path("runs"),
) -> int:
    """Train a small model with several optimizers at equal cost and write a report.

    Every method may spend the same number of plain gradients, or the same time. The report is
    FOLDER/NAME/report.html, one page that needs no network; every row behind it is in
    results.jsonl beside it. The defaults take six minutes or less on two cores. Ctrl-C keeps
    what is finished, and the same command goes on from there.

    Args:
        name: What to call it; a name used before resumes.
        tasks: What to train on.
        methods: What to train with; all is every method `f3eo methods` lists.
        seeds: Runs of each method on each task.
        budget: Cost of a run in plain gradients, or its time in those of one.
        equal: What the budget counts: cost, time, or both, with runs for each.
        set: Hyper-parameters, e.g. sgd.lr=0.1 f3eo.strength=cap f3eo.value=0.03.
        workers: Processes side by side, one thread each.
        folder: Where comparisons are kept.
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
        folder=folder,
        command=typed(),
    )
    outcome = carry_out(comparison, console)
    tell_failures(console, outcome.rows)
    if outcome.rows:
        console.print(f"Report: {outcome.report}", soft_wrap=True)
    return tell_end(console, outcome.missing, outcome.failure)


def _overrides(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`("sgd.lr=0.1", "f3eo.every=2")` as `{"sgd": {"lr": 0.1}, "f3eo": {"every": 2}}`."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, option = name.partition(".")
        if not (equals and dot and method and option):
            raise ValueError(f"--set takes METHOD.OPTION=VALUE, e.g. sgd.lr=0.1, got {text!r}")
        if option in found.setdefault(method, {}):
            raise ValueError(f"--set has {method}.{option} twice; give it once")
        found[method][option] = _value(value)
    return found


def _value(text: str) -> Any:
    """A number, or a name with or without quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")
