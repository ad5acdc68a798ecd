"""What stages never trained on cost a model that was trained on others."""

from collections.abc import Sequence
from math import isfinite
from typing import TypedDict

import torch
from torch import nn

from f3eo.bench.continual.streams import Stage, Stream
from f3eo.bench.continual.unseen import adapt

AFTER = (1, 5, 10, 20)
"""Numbers of trained stages after which it is measured; the last stage is added."""
STEPS = (0, 1, 5, 20)
SHOTS = (None, 5)
"""All training samples, and few: this many of each class."""


class Newcomer(TypedDict):
    """Scores of one model on one stage that it was never trained on.

    `stage`: its name. `after`: number of stages trained before. `shots`: training samples per
    class, None for all. `steps`: of plain SGD on them. `scores`: on its test set, after so many;
    None where it is not finite.
    """

    stage: str
    after: int
    shots: int | None
    steps: list[int]
    scores: list[float | None]


def is_due(after: int, stages: int) -> bool:
    """Whether newcomers are met after so many of the stages."""
    return after in AFTER or after == stages


def newcomers(
    model: nn.Module, stream: Stream, unseen: Sequence[Stage], after: int, batch: int, seed: int
) -> list[Newcomer]:
    """Adapt copies of a model to every unseen stage; see `f3eo.bench.continual.unseen.adapt`.

    Args:
        model: stays as it is.
        stream: gives loss, score and rate of adaptation, the same for all learners.
        unseen: stages it was not trained on.
        after: number of stages it was trained on.
        batch: samples per step.
        seed: draws batches and shots, the same after any number of stages.
    """
    found: list[Newcomer] = []
    for place, stage in enumerate(unseen):
        data = stage.load()
        for shots in SHOTS:
            scores = adapt(
                model,
                stream.loss,
                stream.score,
                data,
                lr=stream.adapt_lr,
                steps=STEPS,
                shots=shots,
                batch=batch,
                generator=torch.Generator().manual_seed(seed + place),
            )
            found.append(
                Newcomer(
                    stage=stage.name,
                    after=after,
                    shots=shots,
                    steps=[*STEPS],
                    scores=[score if isfinite(score) else None for score in scores],
                )
            )
    return found
