"""Training of one run; the same run gives the same result bit for bit."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from f3eo.bench.methods import METHODS
from f3eo.bench.methods.count import count
from f3eo.bench.run.measure import conclude, measure
from f3eo.bench.run.run import Run
from f3eo.bench.tasks import TASKS, Data, Samples, Task


class Result(NamedTuple):
    """Measurements of a run.

    Attributes:
        steps: number of steps that the budget allows.
        gradient_equivalents: cost of one step, in plain gradients.
        curve: by name, one value per measurement, the first before any step: `step`, `gradients`,
            `seconds` (of training) and the values of `f3eo.bench.run.measure.measure`.
        final: values at the last step: `step`, `gradients`, `seconds` and those of
            `f3eo.bench.run.measure.conclude`; None if the run diverged.
        target: `reached`, and `step`, `gradients` and `seconds` of the first point on the curve
            whose score reaches the task's target, else None. These seconds are steps times price,
            in plain gradient steps, and None without a price.
        source: files the data came from, where there is a choice.
    """

    steps: int
    gradient_equivalents: float
    curve: dict[str, list[float]]
    final: dict[str, float | None] | None
    target: dict[str, bool | float | None]
    source: str

    @property
    def diverged(self) -> bool:
        """Whether the run ended early because a loss or Tr F was not finite."""
        return self.final is None

    @property
    def best(self) -> dict[str, float]:
        """The best `test_accuracy` and the best `test_loss` on the curve, each by itself."""
        if not self.curve:
            return {}
        accuracy, loss = self.curve["test_accuracy"], self.curve["test_loss"]
        return {"test_accuracy": max(accuracy), "test_loss": min(loss)}


@lru_cache
def load(task: str) -> Data:
    """The data of a task, loaded once per process."""
    return TASKS[task].load()


def batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """Endless batches, in a new order each epoch; an incomplete last batch is dropped."""
    size = min(size, len(samples.y))
    while True:
        order = torch.randperm(len(samples.y), generator=generator).to(samples.y.device)
        for chosen in order[: len(order) // size * size].split(size):
            yield samples.at(chosen)


def train(
    run: Run,
    progress: Callable[[float], object] = lambda share: None,
    watch: Callable[[nn.Module], object] = lambda model: None,
) -> Result:
    """Train and measure one run; `seconds` counts the steps only.

    Args:
        run: the run.
        progress: called after each measurement with the share that is done, in [0, 1].
        watch: called with the model at each measurement.

    Returns:
        Its measurements, also if it diverged.

    Raises:
        ValueError: the budget is below the price of one step, or the method refuses an option.
    """
    cost = count(run.method, run.options).gradient_equivalents
    random.seed(run.seed)
    numpy.random.seed(run.seed)
    torch.manual_seed(run.seed)
    task, data = TASKS[run.task], load(run.task)
    if run.split == "validation":
        data = data.validation(run.seed)
    data, model = data.to(run.device), task.seeded_model(run.seed).to(run.device)
    outputs, clock = run.place.outputs(model), run.place.clock
    stepper = METHODS[run.method].build(model, run.options, run.seed)
    price = run.price or cost
    steps = int(run.budget / price)
    if steps < 1:
        raise ValueError(
            f"a budget of {run.budget} plain gradients does not pay for one step of {run.method}, "
            f"which costs {price:.2f}; raise the budget"
        )
    schedules = [CosineAnnealingLR(optimizer, steps) for optimizer in stepper.optimizers]
    stream = batches(data.train, run.batch, torch.Generator().manual_seed(run.seed))
    probe = _first(data.train, run.probe)
    test = _first(data.test, task.curve_test)

    def closure(x: Tensor, y: Tensor) -> Tensor:
        return task.loss(outputs(x), y)

    curve: dict[str, list[float]] = defaultdict(list)

    def result(final: dict[str, float | None] | None) -> Result:
        target = _target(task, curve, run.price)
        return Result(steps, cost, dict(curve), final, target, data.source)

    final: dict[str, float | None] = {}
    step, seconds, total = 0, 0.0, torch.zeros(()).to(run.device)
    stops = sorted({round(steps * n / run.evaluations) for n in range(run.evaluations + 1)})
    for stop in stops:
        start = clock()
        while step < stop:
            total += stepper.step(closure, *next(stream))
            for schedule in schedules:
                schedule.step()
            step += 1
        seconds += clock() - start
        stepper.rest()
        watch(model)
        point = measure(model, task.loss, probe, test)
        finite = total.isfinite() and all(map(math.isfinite, point.values()))
        position = {"step": step, "gradients": step * cost, "seconds": seconds}
        if finite and stop == steps:
            end = conclude(model, task.loss, probe, data.test, point, task.corruptions)
            final = position | end
        stepper.resume()
        if not finite:
            return result(None)
        for name, value in (position | point).items():
            curve[name].append(value)
        progress(step / steps)
    return result(final)


def _first(samples: Samples, number: int | None) -> Samples:
    return Samples(samples.x[:number], samples.y[:number])


def _target(
    task: Task, curve: dict[str, list[float]], price: float | None
) -> dict[str, bool | float | None]:
    """See `Result.target`."""
    for place, score in enumerate(curve.get(task.column, ())):
        if task.reached(score):
            step, gradients = curve["step"][place], curve["gradients"][place]
            seconds = None if price is None else step * price
            return {"reached": True, "step": step, "gradients": gradients, "seconds": seconds}
    return {"reached": False, "step": None, "gradients": None, "seconds": None}
