"""Adaptation to a task never trained on: the score after 0, 1, 5 and 20 steps."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from f3eo.bench.tasks.task import Data, Samples

STEPS = (0, 1, 5, 20)
CHUNK = 1_000
"""Samples that are scored at once."""

PerSample = Callable[[Tensor, Tensor], Tensor]
"""(outputs, y) -> (N,)."""


def adapt(
    model: nn.Module,
    loss: PerSample,
    score: PerSample,
    data: Data,
    *,
    lr: float,
    steps: Sequence[int] = STEPS,
    shots: int | None = None,
    batch: int = 10,
    generator: torch.Generator,
) -> list[float]:
    """The mean score on the test samples before and during plain SGD on the training samples.

    What is measured is the point that a learner has reached: all learners adapt by the same rule,
    θ ← θ − lr · ∇ (mean loss of a batch), without momentum and decay, and at the same rate. A rate
    of its own for each learner would have to be chosen on the unseen family, so that part of the
    answer would be the search; and a learner's own optimizer would bring state (moments, anchors,
    a memory) that a new user of the model does not have.

    The rate is the stream's (`Stream.adapt_lr`): of 0.003 · √10ᵏ, rounded, the largest at which the
    mean score over the unseen stages improves from each of 0, 1, 5 and 20 steps to the next, for a
    model trained by plain SGD (texts: AdamW) on the stream of seed 1000. It was chosen for SGD, so
    it favours SGD if anyone.

    The copy stays in evaluation mode, so a learner's dropout has no part in it.

    Args:
        model: trained on other tasks; it is left as it is.
        loss, score: of the stream, per sample.
        data: the unseen task.
        lr: rate, above 0.
        steps: numbers of steps after which the score is taken, not falling; default 0, 1, 5, 20.
        shots: number of training samples of each class, of all together where y holds no classes;
            default None, all.
        batch: samples per step, all where there are fewer; default 10. Samples are drawn without
            replacement until all are used, then anew.
        generator: draws the shots and the batches.

    Returns:
        The mean scores, one for each entry of `steps`; of a copy that diverged, not finite or
        those of chance.

    Raises:
        ValueError: a rate, shots or batch that is not above 0, or steps that fall.

    Source: the protocol of MAML at test time (arXiv 1703.03400, section 5.1), with more steps.
    """
    for name, number in (("lr", lr), ("shots", shots), ("batch", batch)):
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, received {number}")
    if list(steps) != sorted(steps) or any(count < 0 for count in steps):
        raise ValueError(f"steps must not fall and not be negative, received {tuple(steps)}")
    copied = copy.deepcopy(model).eval()
    optimizer = torch.optim.SGD(copied.parameters(), lr=lr)
    train = data.train if shots is None else few(data.train, shots, generator)
    batches, done, scores = _batches(train, batch, generator), 0, []
    for count in steps:
        for x, y in (next(batches) for _ in range(count - done)):
            optimizer.zero_grad()
            loss(copied(x), y).mean().backward()
            optimizer.step()
        done = count
        scores.append(mean(copied, score, data.test))
    return scores


def few(samples: Samples, shots: int, generator: torch.Generator) -> Samples:
    """A few samples of each class, all of a class that has fewer; of all where y is no class.

    Args:
        samples: y (N,) of integers holds classes; targets of another kind do not.
        shots: number k of samples.
        generator: draws them.
    """
    order = torch.randperm(len(samples.y), generator=generator)
    labels = samples.y[order]
    if labels.dim() == 1 and not labels.is_floating_point():
        chosen = torch.cat([order[labels == label][:shots] for label in labels.unique()])
    else:
        chosen = order[:shots]
    return samples.at(chosen)


def mean(model: nn.Module, score: PerSample, samples: Samples) -> float:
    """The mean of a per-sample score over samples, taken a thousand at once."""
    with torch.no_grad():
        parts = [
            score(model(x), y).sum()
            for x, y in zip(samples.x.split(CHUNK), samples.y.split(CHUNK), strict=True)
        ]
    return float(sum(parts)) / len(samples.y)


def _batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """Batches without end: each pass takes all samples once, less a last part that is too small."""
    size = min(size, len(samples.y))
    while True:
        order = torch.randperm(len(samples.y), generator=generator)
        for chosen in order.split(size):
            if len(chosen) == size:
                yield samples.at(chosen)
