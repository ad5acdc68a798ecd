"""Sinusoids: y = sin(x + φ), a phase φ for each stage; regression without noise.

The family of few-shot learning (MAML, arXiv 1703.03400, section 5.1: x from [−5, 5], φ from [0, π],
there with amplitudes from [0.1, 5], here 1). A model sees x alone, so no model serves two phases:
stages contradict each other and what is asked is not what is kept, but how few steps and samples
a new phase takes. The model that answers the mean over all phases, (2/π) cos x, has the least
error without adaptation, ½ − 2/π² ≈ 0.297.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from f3eo.bench.continual.streams.scores import squared_error
from f3eo.bench.continual.streams.stream import Stage, Stream
from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.task import Data, Samples

STAGES, UNSEEN = 10, 5
REACH = 5.0
"""x is drawn from [−REACH, REACH]."""
TRAIN, TEST = 10_000, 1_000


def sinusoid(phase: float, seed: int) -> Data:
    """Samples of sin(x + φ): 10,000 to train on and 1,000 to test, x and y of shape (N, 1).

    Args:
        phase: φ, in radians.
        seed: draws x.
    """
    generator = torch.Generator().manual_seed(seed)
    x = REACH * (2 * torch.rand(TRAIN + TEST, 1, generator=generator) - 1)
    every = Samples(x, (x + phase).sin())
    return Data(Samples(*(t[:TRAIN] for t in every)), Samples(*(t[TRAIN:] for t in every)))


def gaussian_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """½ ‖f − y‖² (N,): −log N(y; f, 1) in nats but for the constant ½ log 2π of each output."""
    return squared_error(outputs, y) / 2


def _family(seed: int) -> list[Stage]:
    generator = torch.Generator().manual_seed(seed)
    phases = math.pi * torch.rand(STAGES + UNSEEN, generator=generator)
    draws = torch.randint(2**31, (STAGES + UNSEEN,), generator=generator)
    return [
        Stage(f"φ{number} = {phase:.2f}", partial(sinusoid, phase, draw))
        for number, (phase, draw) in enumerate(zip(phases.tolist(), draws.tolist(), strict=True), 1)
    ]


def stages(seed: int) -> list[Stage]:
    """Ten phases drawn from [0, π) by the seed."""
    return _family(seed)[:STAGES]


def unseen(seed: int) -> list[Stage]:
    """Five more phases from the same seed."""
    return _family(seed)[STAGES:]


STREAMS = (
    Stream(
        name="sinusoid",
        description="sin(x + φ), ten phases with 10,000 samples each; MLP 1-64-64-1, tanh",
        stages=stages,
        unseen=unseen,
        model=partial(mlp, 1, 64, 64, 1, activation=nn.Tanh),
        loss=gaussian_loss,
        score=squared_error,
        chance=0.5,
        metric="error",
        adapt_lr=0.1,
    ),
)
