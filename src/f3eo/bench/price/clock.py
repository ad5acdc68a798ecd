"""What a step takes by the clock, on a task's own model and batches, in plain gradient steps.

Methods are timed beside each other, not each in its own run: see `f3eo.bench.price.timing`.
"""

import json
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD

from f3eo.bench.execute import disk
from f3eo.bench.methods import METHODS
from f3eo.bench.methods.method import GradientStepper, Stepper
from f3eo.bench.price.row import Quartiles, quartiles
from f3eo.bench.price.timing import Runner, Timing, clock_for, interleave, threads
from f3eo.bench.run.run import Run
from f3eo.bench.run.train import batches, load
from f3eo.bench.tasks import TASKS

PLAIN = "plain gradient"
ROUNDS, FEWEST, STEPS = 15, 5, 10
"""Rounds, fewer where they take long, and steps in each: some methods do more work every ten."""
RATE = 1e-4
"""Learning rate while prices are measured: none diverges, and all see the same weights."""
SECONDS = 60.0
"""After so many on one task, FEWEST rounds are enough."""

FREE = frozenset(
    (
        *("lr", "weight_decay", "momentum", "rho", "alpha", "gamma", "strength", "ratio", "value"),
        *("ess", "hess_init", "num_data", "p"),
    )
)
"""Options that change where a step leads, and not what it takes."""
WEIGHTS = ("ratio", "value")
"""Except these where they are 0: F3EO then measures nothing."""

PRICES = "move it away: prices are then measured anew, and runs at other prices repeated"
"""What to do about damaged prices."""

Options = Mapping[str, Any]


def work(run: Run) -> str:
    """What decides on the price of a run: task, method, and the options that are not FREE."""
    return " ".join([run.task, run.method, *(f"{n}={v}" for n, v in _structure(run).items())])


def _structure(run: Run) -> dict[str, Any]:
    options = sorted(run.options.items())
    off = {name for name in WEIGHTS if run.options.get(name) == 0}
    return {name: value for name, value in options if name not in FREE or name in off}


def prices(
    runs: Sequence[Run], path: Path, tell: Callable[[str], object] = lambda text: None
) -> dict[str, float]:
    """The price of each kind of step, measured unless the file has it.

    Where a method has a price already, one of its kinds is timed once more beside the new ones, and
    they are put on the scale of its old price: a study goes on on another machine, where all of
    them may be dearer, without some getting fewer steps for it.

    Args:
        runs: one of each kind at least; those of a task are timed beside each other.
        path: where prices are kept, so that a comparison resumes with the same, and `plain_ms`,
            the milliseconds of a plain gradient step, by task.
        tell: called with what is going on.

    Returns:
        Time of a step over that of a plain gradient step, by `work`; 1 for a method that cannot be
        timed, whose runs then tell why.
    """
    kept = {"plain_ms": {}, "prices": {}, **disk.read_json(path, PRICES, check_prices)}
    kinds = {work(run): run for run in runs}
    for task in dict.fromkeys(run.task for run in runs):
        new = {
            kind: run
            for kind, run in kinds.items()
            if run.task == task and kind not in kept["prices"]
        }
        if not new:
            continue
        tell(f"timing {len(new)} kinds of steps on {task} …")
        known = _known(task, new.values(), kinds, kept["prices"])
        timed = {**new, **{kind: kinds[kind] for kind in known.values()}}
        still = {kind: (run.method, {**run.options, "lr": RATE}) for kind, run in timed.items()}
        times = step_times(task, still)
        kept["plain_ms"].setdefault(task, round(1e3 * times.plain.median, 4))
        for kind, run in new.items():
            found = times.ratios.get(kind)
            if found is None:
                tell(f"{kind} cannot be timed, its price is set to 1")
            anchor = known.get(run.method, "")
            again = times.ratios.get(anchor)
            scale = kept["prices"][anchor]["price"] / again.median if again else 1.0
            kept["prices"][kind] = {
                "task": task,
                "method": run.method,
                "options": _structure(run),
                "price": 1.0 if found is None else round(scale * found.median, 3),
                "quartiles": found and [round(scale * q, 3) for q in (found.low, found.high)],
            } | ({"scale": round(scale, 3)} if again else {})
        disk.write(path, json.dumps(kept, indent=1) + "\n")
    return {kind: kept["prices"][kind]["price"] for kind in kinds}


def check_prices(found: Mapping[str, Any]) -> None:
    """Refuse what `prices.json` cannot hold.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: with what is missing, or is no number.
    """
    numbers = [entry["price"] for entry in found.get("prices", {}).values()]
    for number in [*numbers, *found.get("plain_ms", {}).values()]:
        if not number > 0:
            raise ValueError(f"{number} is no time")


def _known(
    task: str, new: Iterable[Run], kinds: Mapping[str, Run], kept: Mapping[str, Any]
) -> dict[str, str]:
    """By method of the new runs, the first of its kinds that was timed before."""
    methods = {run.method for run in new}
    known: dict[str, str] = {}
    for kind, run in kinds.items():
        if run.task == task and run.method in methods and kept.get(kind, {}).get("quartiles"):
            known.setdefault(run.method, kind)
    return known


class Times(NamedTuple):
    """What steps take.

    Attributes:
        plain: seconds of a plain gradient step.
        ratios: by label, the time of a step over that of a plain one in the same round; those that
            fail are left out.
    """

    plain: Quartiles
    ratios: dict[str, Quartiles]


def step_times(
    task: str, methods: Mapping[str, tuple[str, Options]], rounds: int = ROUNDS
) -> Times:
    """Time steps of methods beside each other, with one thread.

    Args:
        task: name of the task whose model and batches are used.
        methods: name and all hyper-parameters, by label.
        rounds: measurements of each, of ten steps; default 15, or as many as fit into a minute, but
            no less than five.

    Returns:
        Medians and quartiles over rounds.

    Raises:
        FileNotFoundError, ValueError: the task's data are not there, or others.
    """
    load(task)
    timing, runners = Timing(), dict[str, Runner]()
    with threads(1), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a run they are recorded
        runners[PLAIN] = Runner(_steps(task, PLAIN, {}), STEPS)
        for label, (name, options) in methods.items():
            try:
                runners[label] = Runner(_steps(task, name, options), STEPS)
            except Exception:
                continue
        counts = interleave(runners, timing, generator=random.Random(0), clock=clock_for(1))
        end = time.monotonic() + SECONDS
        with closing(counts):
            for number in counts:
                if number >= rounds or (number >= FEWEST and time.monotonic() > end):
                    break
    found = {
        label: [seconds[label] / seconds[PLAIN] for seconds in timing.rounds if label in seconds]
        for label in methods
        if label in runners and label not in timing.errors
    }
    plain = quartiles([seconds[PLAIN] for seconds in timing.rounds])
    return Times(plain, {label: quartiles(values) for label, values in found.items() if values})


def _steps(task: str, method: str, options: Mapping[str, Any]) -> Callable[[], Tensor]:
    """A function that takes one step, on a model of its own."""
    chosen, model = TASKS[task], TASKS[task].seeded_model(0)
    stream: Iterator = batches(load(task).train, chosen.batch, torch.Generator().manual_seed(0))
    stepper: Stepper
    if method == PLAIN:
        stepper = GradientStepper(SGD(model.parameters(), lr=RATE))
    else:
        stepper = METHODS[method].build(model, options, 0)

    def closure(x: Tensor, y: Tensor) -> Tensor:  # one and the same, as in training
        return chosen.loss(model(x), y)

    return lambda: stepper.step(closure, *next(stream))
