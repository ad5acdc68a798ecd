"""Permuted MNIST: in each stage the pixels of all images are in another, fixed order.

Stages share nothing but the labels: a measure of forgetting where nothing can be carried over.
The usual protocol (Goodfellow et al. 2014, arXiv 1312.6211; 20 stages of one epoch each with
batches of 10 and two hidden layers of 256: Mirzadeh et al. 2020, arXiv 2006.06958), with one
difference: the first stage is permuted, too, so that no stage has an order of its own kind. A
pixel order never seen cannot be read at zero steps, hence no unseen stages; `blocks` has them.
"""

from functools import partial

import torch
from torch import Tensor

from f3eo.bench.continual.streams.images import PIXELS, image_stage, mnist, network
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream, none
from f3eo.bench.tasks.task import Samples, cross_entropy

STAGES = 20


def reordered(images: Samples, order: Tensor) -> Samples:
    """Images whose pixel i is the pixel order[i] of before.

    Args:
        images: (N, 784) and labels (N,).
        order: a permutation of 0 … 783, (784,).
    """
    return images._replace(x=images.x[:, order])


def orders(seed: int, number: int, length: int) -> Tensor:
    """Permutations (number, length) drawn from a seed; the first ones do not depend on `number`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(length, generator=generator) for _ in range(number)])


def stages(seed: int) -> list[Stage]:
    """MNIST in 20 orders of pixels, drawn from the seed."""
    return [
        image_stage(f"order {number}", mnist, partial(reordered, order=order), alone=True)
        for number, order in enumerate(orders(seed, STAGES, PIXELS), 1)
    ]


STREAMS = (
    Stream(
        name="permuted-mnist",
        description="MNIST in 20 orders of its pixels, 60,000 images each; MLP 784-256-256-10",
        stages=stages,
        unseen=none,
        tuned_on=STAGES,
        model=network,
        loss=cross_entropy,
        score=correct,
        chance=0.1,
    ),
)
