"""A stream of three small stages: two Gaussian clouds, in other directions each; a linear model."""

from dataclasses import replace

import torch
from torch import nn

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.run.stream_run import StreamRun
from f3eo.bench.continual.streams import Stage, Stream
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.tasks import Data, Samples
from f3eo.bench.tasks.task import cross_entropy

TRAIN, TEST, SIZE = 60, 40, 4


def clouds(seed, stage):
    """Labels are the side of a plane of the stage's own."""
    generator = torch.Generator().manual_seed(10 * seed + stage)
    centre = torch.randn(SIZE, generator=generator)
    y = torch.randint(2, (TRAIN + TEST,), generator=generator)
    x = (2 * y - 1).unsqueeze(1) * centre + torch.randn(TRAIN + TEST, SIZE, generator=generator)
    return Data(Samples(x[:TRAIN], y[:TRAIN]), Samples(x[TRAIN:], y[TRAIN:]))


def stages(seed, first=0, number=3):
    return [Stage(f"cloud {k}", lambda k=k: clouds(seed, k)) for k in range(first, first + number)]


BLOBS = Stream(
    name="blobs",
    description="two clouds",
    stages=stages,
    unseen=lambda seed: stages(seed, 7, 1),
    model=lambda: nn.Sequential(nn.Linear(SIZE, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2)),
    loss=cross_entropy,
    score=correct,
    chance=0.5,
    tuned_on=2,
)


def made(learner="sgd", stream="blobs", **changes):
    """A run of all three stages, six steps each."""
    options = PEERS[learner].options(changes.pop("options", {}))
    usual = StreamRun(stream, learner, 0, options, stages=3, batch=10, epochs=1)
    return replace(usual, **changes)
