"""Train one model: pure in its run, so that the same run gives the same result bit for bit."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from time import perf_counter
from typing import NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from f3eo import fisher_trace
from f3eo.bench.count import count
from f3eo.bench.methods import METHODS, Closure
from f3eo.bench.run import Run
from f3eo.bench.tasks import TASKS, Data, Samples


class Result(NamedTuple):
    """What a run measured.

    Attributes:
        steps: steps the budget paid for.
        gradient_equivalents: cost of one step, in plain gradients.
        curve: by name, one value per measurement, the first before any step; `step`,
            `gradients`, `seconds` (training only), `train_loss`, `test_loss` (nats),
            `test_accuracy` (in [0, 1]) and `fisher_trace`.
        diverged: the loss stopped being a number, and the run ended there.
    """

    steps: int
    gradient_equivalents: float
    curve: dict[str, list[float]]
    diverged: bool


@lru_cache
def load(task: str) -> Data:
    """The data of a task, read once per process."""
    return TASKS[task].load()


def batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """Batches without end, in a new order each epoch; a last incomplete batch is left out."""
    size = min(size, len(samples.y))
    while True:
        order = torch.randperm(len(samples.y), generator=generator)
        for chosen in order[: len(order) // size * size].split(size):
            yield Samples(samples.x[chosen], samples.y[chosen])


def measure(model: nn.Module, closure: Closure, probe: Samples, test: Samples) -> dict[str, float]:
    """Loss and accuracy on the test samples, loss and exact Tr F on the probe; draws nothing."""
    model.eval()
    with torch.no_grad():
        test_loss = closure(test.x, test.y).mean().item()
        accuracy = (model(test.x).argmax(-1) == test.y).double().mean().item()
    train_loss = trace = math.nan
    if math.isfinite(test_loss):  # else there is no gradient to speak of
        losses, exact = fisher_trace(model, closure, probe.x, probe.y)
        train_loss, trace = losses.detach().mean().item(), exact.detach().item()
    model.train()
    return {
        "train_loss": train_loss,
        "test_loss": test_loss,
        "test_accuracy": accuracy,
        "fisher_trace": trace,
    }


def train(run: Run, progress: Callable[[float], object] = lambda share: None) -> Result:
    """Train and measure one run; only the steps are on the clock.

    Args:
        run: what to train.
        progress: called with the finished share, in [0, 1], after each measurement.

    Returns:
        Its curve; a divergence is a result too.

    Raises:
        ValueError: a budget below the price of one step, or an option the method refuses.
    """
    cost = count(run.method, run.options).gradient_equivalents
    random.seed(run.seed)
    numpy.random.seed(run.seed)
    torch.manual_seed(run.seed)
    task, data = TASKS[run.task], load(run.task)
    if run.split == "validation":
        data = data.validation(run.seed)
    model = task.seeded_model(run.seed)
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
    probe = Samples(data.train.x[: run.probe], data.train.y[: run.probe])

    def closure(x: Tensor, y: Tensor) -> Tensor:
        return task.loss(model(x), y)

    curve: dict[str, list[float]] = defaultdict(list)
    step, seconds, total = 0, 0.0, torch.zeros(())
    stops = sorted({round(steps * n / run.evaluations) for n in range(run.evaluations + 1)})
    for stop in stops:
        start = perf_counter()
        while step < stop:
            total += stepper.step(closure, *next(stream))
            for schedule in schedules:
                schedule.step()
            step += 1
        seconds += perf_counter() - start
        stepper.rest()
        point = measure(model, closure, probe, data.test)
        stepper.resume()
        if not total.isfinite() or not all(map(math.isfinite, point.values())):
            return Result(steps, cost, dict(curve), diverged=True)
        position = {
            "step": step,
            "gradients": step * cost,
            "seconds": seconds,
        }
        for name, value in (position | point).items():
            curve[name].append(value)
        progress(step / steps)
    return Result(steps, cost, dict(curve), diverged=False)
