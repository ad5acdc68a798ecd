"""Time of a method's step on a task's own model and batches, over that of a plain gradient step.

Methods are timed interleaved, not one after the other; see `f3eo.bench.price.timing`.
"""

import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from f3eo.bench.methods import METHODS
from f3eo.bench.price.ratios import Quartiles, quartiles, time_ratios
from f3eo.bench.price.timing import Effort, Runner, Timing, clock_for, threads, time_rounds
from f3eo.bench.price.variants import GRADIENT
from f3eo.bench.run.place import PROCESSOR, Place
from f3eo.bench.run.train import batches, load
from f3eo.bench.tasks import TASKS

PLAIN = GRADIENT.label
ROUNDS, FEWEST, SECONDS = 15, 5, 60.0
"""Rounds on a task; once this many seconds have passed, the fewest are enough."""
STEPS = 10
"""Steps in a round; some methods do more work at every tenth."""


class Times(NamedTuple):
    """Times of steps.

    Attributes:
        plain: seconds of a plain gradient step.
        ratios: by label, time of a step over that of a plain gradient step in the same round;
            methods that fail are absent.
    """

    plain: Quartiles
    ratios: dict[str, Quartiles]


def step_times(
    task: str,
    methods: Mapping[str, tuple[str, Mapping[str, Any]]],
    rounds: int = ROUNDS,
    place: Place = PROCESSOR,
) -> Times:
    """Time steps of methods, interleaved, with one thread.

    Args:
        task: name of the task whose model and batches are used.
        methods: by label, the method's name and all its hyper-parameters.
        rounds: measurements of each method, of ten steps; default 15, or as many as fit into a
            minute, but at least five.
        place: device and precision of all steps; default the processor and float32.

    Returns:
        Medians and quartiles over rounds.

    Raises:
        FileNotFoundError, ValueError: the task's data are missing or have other content.
    """
    load(task)
    timing, runners = Timing(), dict[str, Runner]()
    with threads(1), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of runs record them
        runners[PLAIN] = Runner(_stepping(task, PLAIN, {}, place), STEPS)
        for label, (name, options) in methods.items():
            try:
                runners[label] = Runner(_stepping(task, name, options, place), STEPS)
            except Exception:
                continue
        effort = Effort(FEWEST, rounds, SECONDS)
        generator, clock = random.Random(0), clock_for(1, place)
        time_rounds(
            runners, timing, effort, generator=generator, clock=clock, begin=time.monotonic()
        )
    working = [label for label in methods if label in runners and label not in timing.errors]
    ratios = {label: time_ratios(timing.rounds, label, PLAIN) for label in working}
    plain = quartiles([seconds[PLAIN] for seconds in timing.rounds])
    return Times(plain, {label: quartiles(values) for label, values in ratios.items() if values})


def _stepping(
    task: str, method: str, options: Mapping[str, Any], place: Place
) -> Callable[[], Tensor]:
    """A function that takes one step of the method, on a model and batches of its own."""
    chosen, model = TASKS[task], TASKS[task].seeded_model(0).to(place.device)
    samples, outputs = load(task).to(place.device).train, place.outputs(model)
    stream: Iterator = batches(samples, chosen.batch, torch.Generator().manual_seed(0))
    stepper = GRADIENT.build(model) if method == PLAIN else METHODS[method].build(model, options, 0)

    def closure(x: Tensor, y: Tensor) -> Tensor:  # one object for all steps, as in training
        return chosen.loss(outputs(x), y)

    return lambda: stepper.step(closure, *next(stream))
