"""The options that `f3eo tune` and `f3eo bench` share, and the study they ask for."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from f3eo.bench.plan.spaces import WRAPPERS
from f3eo.bench.plan.study import CHOICES, PARTS, QUICK, TUNED, USUAL, WHERE, Study
from f3eo.bench.tasks import TASKS
from f3eo.cli.app import typed


def _option(name: str, metavar: str, text: str, **more: Any) -> Any:
    """An option with a default in USUAL and another in QUICK."""

    def shown(value: Any) -> str:
        return " ".join(value) if isinstance(value, tuple) else str(value)

    defaults = f"(default: {shown(USUAL[name])}; with --quick {shown(QUICK[name])})"
    return arg(metavar=metavar, help=text, help_behavior_hint=defaults, **more)


Name = Annotated[
    str | None,
    _option(
        "name", "NAME", "Name of the study, a folder below --folder. An existing study resumes."
    ),
]
Tasks = Annotated[
    tuple[str, ...],
    _option("tasks", "TASK ...", f"Tasks, from: {' '.join(TASKS)}.", aliases=["--task"]),
]
Methods = Annotated[
    tuple[str, ...], _option("methods", "METHOD ...", f"Methods, from: {' '.join(TUNED)}.")
]
Trials = Annotated[
    int | None,
    _option(
        "trials", "N", "Settings tried per method and task, the default among them; at least 1."
    ),
]
Seeds = Annotated[
    int | None, _option("seeds", "N", "Results per method and task, one per seed; at least 1.")
]
Scale = Annotated[
    float | None, _option("scale", "X", "Factor on the budget of every task, above 0.")
]
Base = Annotated[
    Literal["usual", "best", "sgd", "adamw", "muon"] | None,
    _option(
        "base",
        "|".join(CHOICES),
        "Base optimizer of methods that wrap one, as SAM and F3EO do. usual: that of the task, SGD "
        "or, for transformers, AdamW. best: the one of SGD, AdamW and Muon that scores best on the "
        "task's held-out samples by itself. sgd, adamw, muon: this one on every task.",
    ),
]
Only = Annotated[
    tuple[str, ...],
    _option(
        "parts",
        "PART ...",
        f"Parts to run, from: {' '.join(PARTS)}. results: all methods. ablation: F3EO and SAM with "
        "one part changed. sensitivity: F3EO on grids of learning rate and strength.",
    ),
]
Workers = Annotated[
    int, arg(metavar="N", help="Number of processes, one torch thread each; at least 1.")
]
Folder = Annotated[Path, arg(metavar="PATH", help="Folder that holds the studies.")]
Minutes = Annotated[
    float | None,
    arg(
        metavar="M",
        help="Time in minutes after which no further run starts, above 0.",
        help_behavior_hint="(default: no limit)",
    ),
]
Quick = Annotated[
    bool, arg(help="Take the defaults of the small study, for a quarter of an hour on two cores.")
]


def study_asked(
    quick: bool,
    workers: int,
    device: str,
    folder: Path,
    minutes: float | None,
    *values: Any,
) -> Study:
    """The usual or the quick study, with the given values in place of its defaults.

    Args:
        quick: whether defaults come from QUICK.
        workers, device, folder, minutes: see `Study`.
        values: name, tasks, methods, trials, seeds, scale, base, parts; None or () is not given.

    Raises:
        ValueError: a value out of range, or one without effect.
    """
    names = ("name", "tasks", "methods", "trials", "seeds", "scale", "base", "parts")
    given = {n: value for n, value in zip(names, values, strict=True) if value not in (None, ())}
    settings = {**(QUICK if quick else USUAL), **given}
    how = {"workers": workers, "device": device, "folder": folder, "minutes": minutes}
    study = Study(**settings, **how, command=typed())
    if given.get("base", "usual") != "usual" and not set(study.methods) & set(WRAPPERS):
        raise ValueError(
            f"--base {study.base} has no effect: none of the methods wraps a base; add one of "
            f"{', '.join(WRAPPERS)}"
        )
    if "parts" in given and study.idle_parts:
        raise ValueError(f"--only {study.idle_parts[0]} has no effect: {WHERE}")
    return study
