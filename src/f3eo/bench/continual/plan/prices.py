"""Prices of learners: the measured time of a step, in SGD steps, kept in prices.json."""

import json
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from f3eo.bench.continual.learners import PEERS, Learner
from f3eo.bench.continual.run.order import Batches, ordered
from f3eo.bench.continual.streams import STREAMS, Stream
from f3eo.bench.execute import disk
from f3eo.bench.methods import Closure
from f3eo.bench.price.prices import CURE, check_prices
from f3eo.bench.price.ratios import quartiles, time_ratios
from f3eo.bench.price.step_times import FEWEST, ROUNDS, SECONDS, Times
from f3eo.bench.price.timing import Effort, Runner, Timing, clock_for, threads, time_rounds
from f3eo.bench.price.variants import RATE
from f3eo.bench.tasks import Samples

PLAIN = "sgd"
"""The learner whose step is the unit."""
FIRST = ", first stage"
"""Behind a learner's name, stands for its steps in the first stage."""
STEPS = 20
"""Steps in a round; some learners do more work at every fifth."""


def prices(
    streams: Mapping[str, int],
    learners: Sequence[str],
    path: Path,
    tell: Callable[[str], object] = lambda text: None,
) -> dict[tuple[str, str], float]:
    """The price of a step of every learner on every stream, measured unless the file has it.

    Learners of a stream without a price are timed together, at their default options: steps of
    the first stage, which pre-shaping makes dearer and a penalty not yet, and of later ones. The
    price is the mean over K stages, (first + (K − 1) later)/K.

    Args:
        streams: K by name of the stream.
        learners: names.
        path: file that keeps the prices and, as `plain_ms` by stream, the milliseconds of an SGD
            step.
        tell: called with a line about what is being timed; default nothing.

    Returns:
        By stream and learner, the time of a step over that of an SGD step; 1 for a
        learner that cannot be timed, whose runs then fail with the reason.

    Raises:
        Damaged: the file holds something else.
    """
    stored = {"plain_ms": {}, "prices": {}, **disk.read_json(path, CURE, check)}
    known = stored["prices"]
    for stream in streams:
        new = [name for name in learners if f"{stream} {name}" not in known]
        if not new:
            continue
        tell(f"timing {len(new)} learners on {stream} …")
        timed = dict.fromkeys((PLAIN, *new))
        options = {name: {**PEERS[name].options(), "lr": RATE} for name in timed}
        times = step_times(STREAMS[stream], options)
        stored["plain_ms"].setdefault(stream, round(1e3 * times.plain.median, 4))
        for name in new:
            first, later = times.ratios.get(name + FIRST), times.ratios.get(name)
            if first is None or later is None:
                tell(f"{name} cannot be timed on {stream}, its price is set to 1")
            known[f"{stream} {name}"] = {
                "stream": stream,
                "learner": name,
                "price": 1.0 if later is None else round(later.median, 3),
                "first": 1.0 if first is None else round(first.median, 3),
                "quartiles": later and [round(q, 3) for q in (later.low, later.high)],
            }
        disk.write(path, json.dumps(stored, indent=1) + "\n")
    return {
        (stream, name): round((own["first"] + (stages - 1) * own["price"]) / stages, 3)
        for stream, stages in streams.items()
        for name in learners
        if (own := known[f"{stream} {name}"])
    }


def check(content: Mapping[str, Any]) -> None:
    """Refuse content that is not that of a prices.json; see `check_prices`."""
    check_prices(content)
    for entry in content.get("prices", {}).values():
        if not entry["first"] > 0:
            raise ValueError(f"a time must be positive, got {entry['first']}")


def step_times(
    stream: Stream, learners: Mapping[str, Mapping[str, Any]], rounds: int = ROUNDS
) -> Times:
    """Time steps of learners in a first and in a second stage, interleaved, with one thread.

    Steps of a second stage follow a whole first one, so that penalties and memories are at work.
    What a learner does between stages is not in the price: at 60,000 samples a stage it is less
    than 2 % of the time (EWC's Fisher takes 1,000).

    Args:
        stream: gives model, loss, batches.
        learners: options by learner, PLAIN among them.
        rounds: measurements of each learner, of STEPS steps; default 15, or as many as fit into a
            minute, but at least five.

    Returns:
        Medians and quartiles over rounds, by learner of the second stage and by its name with
        FIRST of the first; learners that fail are absent.
    """
    timing, runners = Timing(), dict[str, Runner]()
    whole = stream.stages(0)[0].load().train
    size = STEPS * stream.batch
    samples = Samples(whole.x[:size].clone(), whole.y[:size].clone())
    with threads(1), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of runs record them
        for name, options in learners.items():
            try:
                runners[name + FIRST] = Runner(_stage(stream, name, options, samples))
                runners[name] = Runner(_stepping(stream, name, options, samples), STEPS)
            except Exception:
                continue
        effort, clock = Effort(FEWEST, rounds, SECONDS), clock_for(1)
        generator, begin = random.Random(0), time.monotonic()
        time_rounds(runners, timing, effort, generator=generator, clock=clock, begin=begin)
    working = [name for name in runners if name not in timing.errors]
    units = {name: PLAIN + FIRST if name.endswith(FIRST) else PLAIN for name in working}
    ratios = {name: time_ratios(timing.rounds, name, unit) for name, unit in units.items()}
    plain = quartiles([seconds[PLAIN] for seconds in timing.rounds])
    return Times(plain, {name: quartiles(values) for name, values in ratios.items() if values})


def _stage(
    stream: Stream, name: str, options: Mapping[str, Any], samples: Samples
) -> Callable[[], Tensor]:
    """A function that takes all steps of a first stage, on a model of its own."""
    learner, closure, data = _made(stream, name, options, samples)

    def stage() -> Tensor:
        learner.begin(0, STEPS)
        return [learner.step(closure, x, y) for x, y in data][-1]

    return stage


def _stepping(
    stream: Stream, name: str, options: Mapping[str, Any], samples: Samples
) -> Callable[[], Tensor]:
    """A function that takes one step of a second stage, on a model of its own."""
    learner, closure, data = _made(stream, name, options, samples)
    learner.begin(0, STEPS)
    for x, y in data:
        learner.step(closure, x, y)
    learner.end(closure, data.first(max(1, len(samples.y) // stream.batch)))
    learner.begin(1, STEPS)
    endless = cycle(data)
    return lambda: learner.step(closure, *next(endless))


def _made(
    stream: Stream, name: str, options: Mapping[str, Any], samples: Samples
) -> tuple[Learner, Closure, Batches]:
    model = stream.seeded_model(0)
    data = ordered(samples, stream.batch, STEPS, torch.Generator().manual_seed(0))

    def closure(x: Tensor, y: Tensor) -> Tensor:  # one object for all steps, as in training
        return stream.loss(model(x), y)

    return PEERS[name].build(model, options, 0), closure, data
