"""Training of one stream run; the same run gives the same result bit for bit."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter

import numpy
import torch
from torch import Tensor, nn

from f3eo.bench.continual.learners import PEERS, Learner
from f3eo.bench.continual.run.judge import at_rest, judge
from f3eo.bench.continual.run.newcomers import Newcomer, is_due, newcomers
from f3eo.bench.continual.run.order import Batches, ordered
from f3eo.bench.continual.run.stream_run import StreamRun
from f3eo.bench.continual.run.structure import Probe, columns, structure
from f3eo.bench.continual.streams import STREAMS, Stage, Stream, held_out, limited
from f3eo.bench.methods import Closure

LOOK = 100
"""Steps after which the loss is looked at, and progress is told."""
MOST = 1000
"""More stages than any stream has: each stage of each seed has an order of its own."""

Progress = Callable[[float], object]


class Diverged(ArithmeticError):
    """A loss is not finite."""


@dataclass
class Result:
    """Measurements of a run, as far as it went.

    Args:
        scores: on the test set of each stage, a list before any training and one after each stage.
        losses: the same of the test loss, in nats.
        structure: after each stage, the numbers of `structure.structure`; by name once stored.
        unseen: see `newcomers`.
        steps: steps of each stage that ended.
        seconds: time of training, measurements left out.
        error: why it ended early; empty if it did not.
    """

    scores: list[list[float]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    points: list[dict[str, float | None]] = field(default_factory=list)
    unseen: list[Newcomer] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""

    @property
    def structure(self) -> dict[str, list[float | None]]:
        """The numbers by name, each a list over stages."""
        return columns(self.points)


def train(run: StreamRun, progress: Progress = lambda share: None) -> Result:
    """Train a learner on the stages of a stream, one after another, and measure after each.

    Trials are trained and judged on training samples alone, and measure scores and losses only.

    Args:
        run: the run.
        progress: called during training with the share that is done, in [0, 1].

    Returns:
        Its measurements, also if it diverged.
    """
    random.seed(run.seed)
    numpy.random.seed(run.seed)
    torch.manual_seed(run.seed)
    stream, peer = STREAMS[run.stream], PEERS[run.learner]
    stages, unseen = _stages(run, stream), _unseen(run, stream)
    model = stream.seeded_model(run.seed)
    learner = peer.build(model, run.options, run.seed)
    probe, result = Probe(run.seed), Result()

    def closure(x: Tensor, y: Tensor) -> Tensor:  # one object for all steps, as learners see it
        return stream.loss(model(x), y)

    try:
        _judge(model, stream, stages, result)
        for number, stage in enumerate(stages):
            samples = stage.load().train
            draw = torch.Generator().manual_seed(MOST * run.seed + number)
            steps = run.steps(len(samples.y))
            data = ordered(samples, run.batch, steps, draw)

            def told(share: float, done: int = number) -> None:
                progress((done + share) / len(stages))

            begin = perf_counter()
            _stage(learner, closure, data, run.epoch(len(samples.y)), number, told)
            result.seconds += perf_counter() - begin
            with at_rest(model):
                _judge(model, stream, stages, result)
                if run.kind == "result":
                    probe.add(samples)
                    result.points.append(structure(model, stream.loss, probe))
                    if is_due(number + 1, len(stages)):
                        result.unseen += newcomers(
                            model, stream, unseen, number + 1, run.batch, run.seed
                        )
            result.steps.append(steps)
    except (Diverged, FloatingPointError) as error:
        result.error = f"{error}, in stage {len(result.steps) + 1} of {len(stages)}"
    return result


def _stages(run: StreamRun, stream: Stream) -> list[Stage]:
    """The stages of a run; those of a trial never touch a test set."""
    stages: Sequence[Stage] = list(stream.stages(run.seed))[: run.stages]
    if run.kind == "trial":
        stages = [held_out(stage, run.seed) for stage in stages]
    return [limited(stage, run.samples, run.tests, run.seed) for stage in stages]


def _unseen(run: StreamRun, stream: Stream) -> list[Stage]:
    """The stages of newcomers; trials have none, since these ask for test sets."""
    stages = stream.unseen(run.seed) if run.kind == "result" else ()
    return [limited(stage, tests=run.tests, seed=run.seed) for stage in stages]


def _stage(
    learner: Learner, closure: Closure, data: Batches, epoch: int, number: int, progress: Progress
) -> None:
    """Train one stage; its end gets every sample that it was trained on once.

    Raises:
        Diverged: a loss is not finite.
    """
    total = torch.zeros(())
    learner.begin(number, len(data))
    for step, batch in enumerate(data, 1):
        total = total + learner.step(closure, *batch)
        if step % LOOK == 0 or step == len(data):
            if not isfinite(float(total)):
                raise Diverged("a loss of training was not finite")
            progress(step / len(data))
    learner.end(closure, data.first(epoch))


def _judge(model: nn.Module, stream: Stream, stages: Sequence[Stage], result: Result) -> None:
    """Add a row of scores and losses.

    Raises:
        Diverged: a loss is not finite; no row is added.
    """
    with at_rest(model):
        found = [judge(model, stream.loss, stream.score, stage.test()) for stage in stages]
    if not all(isfinite(one.loss) and isfinite(one.score) for one in found):
        raise Diverged("a test loss was not finite")
    result.scores.append([one.score for one in found])
    result.losses.append([one.loss for one in found])
