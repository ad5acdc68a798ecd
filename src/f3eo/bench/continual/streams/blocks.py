"""Block-permuted MNIST: the image is cut into quarters, and each stage puts them in another order.

A quarter keeps its pixels, so strokes stay what they are and stages have more in common than pixel
orders: a model that has seen some of the 24 orders can read one that it has not. With 4×4 blocks
it cannot: after plain SGD on ten orders (10,000 images each, rate 0.03, seed 1000) five new ones
were read at 5 to 14 % without a step, those of quarters at 48 to 75 %.
"""

from functools import partial
from itertools import permutations

import torch
from torch import Tensor

from f3eo.bench.continual.streams.images import FEW, PIXELS, SIDE, image_stage, mnist, network
from f3eo.bench.continual.streams.permuted import reordered
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream
from f3eo.bench.tasks.task import cross_entropy

STAGES, UNSEEN = 10, 5
BLOCKS = 4
"""Quarters, of 14×14 pixels."""


def pixel_order(blocks: Tensor) -> Tensor:
    """The order of pixels that puts block blocks[i] in the place of block i.

    Args:
        blocks: a permutation of the B² blocks, counted row by row; B divides 28.

    Returns:
        A permutation of 0 … 783, (784,), for `reordered`.

    Raises:
        ValueError: the number of blocks is no square of a divisor of 28.
    """
    along = round(len(blocks) ** 0.5)
    if along**2 != len(blocks) or SIDE % along:
        raise ValueError(
            f"an image of {SIDE}×{SIDE} has no {len(blocks)} equal square blocks: take the square "
            f"of a divisor of {SIDE}, e.g. 16"
        )
    size = SIDE // along
    pixels = torch.arange(PIXELS).view(along, size, along, size).transpose(1, 2)
    moved = pixels.reshape(along**2, size, size)[blocks]
    return moved.view(along, along, size, size).transpose(1, 2).flatten()


def block_orders(seed: int, number: int) -> Tensor:
    """Orders of the quarters (number, 4), all different, drawn from a seed; at most 24."""
    every = torch.tensor(list(permutations(range(BLOCKS))))
    generator = torch.Generator().manual_seed(seed)
    return every[torch.randperm(len(every), generator=generator)[:number]]


def _family(orders: Tensor, train: int | None = None) -> list[Stage]:
    return [
        image_stage(
            "".join(str(block + 1) for block in blocks.tolist()),
            mnist,
            partial(reordered, order=pixel_order(blocks)),
            train,
            alone=True,
        )
        for blocks in orders
    ]


def stages(seed: int) -> list[Stage]:
    """MNIST in 10 orders of its quarters, drawn from the seed."""
    return _family(block_orders(seed, STAGES))


def unseen(seed: int) -> list[Stage]:
    """Five more of the 24 orders, from the same seed; with 5,000 training images."""
    return _family(block_orders(seed, STAGES + UNSEEN)[STAGES:], FEW)


STREAMS = (
    Stream(
        name="block-mnist",
        description="MNIST in 10 orders of its quarters, 60,000 images each; MLP 784-256-256-10",
        stages=stages,
        unseen=unseen,
        tuned_on=5,
        model=network,
        loss=cross_entropy,
        score=correct,
        chance=0.1,
    ),
)
