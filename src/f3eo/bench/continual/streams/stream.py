"""A stream: tasks that follow one another, their model, loss and score, as one record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import torch
from torch import Tensor, nn

from f3eo.bench.models.model import seeded
from f3eo.bench.tasks.task import Data, Samples, parted

Pick = Callable[[int], Tensor]
"""(N) -> numbers of some of N samples."""


@dataclass(frozen=True)
class Stage:
    """One task of a stream.

    Args:
        name: short, for tables and the axes of matrices.
        load: () -> the data, the same at every call.
        only_test: () -> the test samples of `load` without its training samples, where these can
            be left out; default None, by `load`.
        some: (pick) -> the training samples with the numbers pick(N), of the N of `load`, where
            the others need not be made; default None, by `load`.
    """

    name: str
    load: Callable[[], Data]
    only_test: Callable[[], Samples] | None = None
    some: Callable[[Pick], Samples] | None = None

    def test(self) -> Samples:
        """The test samples: a sweep over all stages must not load what they are trained on."""
        return self.load().test if self.only_test is None else self.only_test()

    def training(self, pick: Pick) -> Samples:
        """The training samples with the numbers pick(N), of N: the others may stay unmade."""
        if self.some is not None:
            return self.some(pick)
        every = self.load().train
        return every.at(pick(len(every.y)))


@lru_cache(maxsize=2)
def recent(load: Callable[[], Data]) -> Data:
    """What `load()` gives; of all stages, the last two results are kept.

    The 60,000 images of a stage are 188 MB in float32: twenty stages must not lie in memory.
    """
    return load()


@dataclass(frozen=True)
class Stream:
    """Tasks for one model, one after another.

    A stage's own head, where a stream has heads, is coded in the labels: steps and learners take
    (x, y) and know nothing of stages (`f3eo.bench.continual.streams.heads`).

    Args:
        name: name on the command line.
        description: data, stages and model in one line, for the report.
        stages: (seed) -> the tasks in their order.
        unseen: (seed) -> tasks of the same family that are never trained on; () if there are none.
        model: () -> a newly initialised model; it draws from torch's global generator.
        loss: per-sample loss, (outputs, y) -> (N,).
        score: per-sample score, (outputs, y) -> (N,).
        chance: mean score of a model that knows nothing of its input.
        metric: what the score is; "accuracy", the default, is better where it is higher, "loss"
            and "error" where it is lower.
        batch: samples per step; default 10.
        epochs: passes through the training samples of a stage; default 1.
        tuned_on: number of stages, from the first on, to tune hyper-parameters on; default 3. All
            on long streams: a few do not show what a rate that falls by a factor a stage, or a
            penalty that grows, does to the last.
        adapt_lr: rate of plain SGD on unseen stages, see `f3eo.bench.continual.unseen.adapt`;
            default 0.03.
    """

    name: str
    description: str
    stages: Callable[[int], Sequence[Stage]]
    unseen: Callable[[int], Sequence[Stage]]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    chance: float
    metric: Literal["accuracy", "loss", "error"] = "accuracy"
    batch: int = 10
    epochs: int = 1
    tuned_on: int = 3
    adapt_lr: float = 0.03

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is a better one."""
        return self.metric == "accuracy"

    def seeded_model(self, seed: int) -> nn.Module:
        """A model initialised from `seed`; torch's global random state is restored."""
        return seeded(self.model, seed)


def none(seed: int) -> tuple[Stage, ...]:
    """The unseen stages of a stream without any."""
    return ()


def held_out(stage: Stage, seed: int, share: float = 0.2) -> Stage:
    """A stage for tuning: a share of its training samples takes the place of the test samples.

    Args:
        stage: its test samples are not used.
        seed: determines which samples are held out.
        share: share of the training samples that is held out, in (0, 1); default 0.2.
    """

    def test() -> Samples:
        return stage.training(lambda count: parted(count, seed, share)[0])

    def some(pick: Pick) -> Samples:
        def chosen(count: int) -> Tensor:
            left = parted(count, seed, share)[1]
            return left[pick(len(left))]

        return stage.training(chosen)

    load = partial(recent, lambda: stage.load().validation(seed, share))
    return Stage(stage.name, load, lru_cache(maxsize=1)(test), some)


def limited(
    stage: Stage, samples: int | None = None, tests: int | None = None, seed: int = 0
) -> Stage:
    """A stage with fewer samples, drawn once from all: a random part has nearly its class shares.

    Args:
        stage: the whole stage. To tune on a part, hold out first: `limited(held_out(…), …)`.
        samples: number of training samples, the same for every seed; default None, all; as many as
            there are if more.
        tests: number of test samples, likewise, but drawn by the seed: intervals over seeds then
            hold the choice of these samples.
        seed: of the test samples; default 0.

    Raises:
        ValueError: `samples` or `tests` is below 1.
    """
    for name, number in (("samples", samples), ("tests", tests)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1 or None for all, received {number}")

    def train() -> Samples:
        if samples is None:
            return stage.load().train
        return stage.training(partial(_numbers, number=samples, seed=0))

    def test(number: int) -> Samples:
        every = stage.test()
        return every.at(_numbers(len(every.y), number, seed))

    few = stage.test if tests is None else lru_cache(maxsize=1)(partial(test, tests))

    def load() -> Data:
        return Data(train(), few())

    return Stage(stage.name, load if samples is None else partial(recent, load), few)


def _numbers(count: int, number: int, seed: int) -> Tensor:
    """The numbers of some of `count` samples, at random; all in order if there are not more."""
    if number >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:number]
