"""Block-permuted MNIST: the image is cut into blocks, and each stage puts them in another order.

Each block keeps its pixels, so strokes stay what they are and stages have more in common than
pixel orders: a model that has seen many orders can read one that it has not.
"""

from functools import partial

import torch
from torch import Tensor

from f3eo.bench.continual.streams.images import PIXELS, SIDE, image_stage, mnist, network
from f3eo.bench.continual.streams.permuted import orders, reordered
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream
from f3eo.bench.tasks.task import cross_entropy

STAGES, UNSEEN = 10, 5
BLOCKS = 4
"""Blocks along each side, of 7×7 pixels."""


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


def _family(seed: int) -> list[Stage]:
    return [
        image_stage(f"blocks {number}", mnist, partial(reordered, order=pixel_order(blocks)))
        for number, blocks in enumerate(orders(seed, STAGES + UNSEEN, BLOCKS**2), 1)
    ]


def stages(seed: int) -> list[Stage]:
    """MNIST in 10 orders of its blocks, drawn from the seed."""
    return _family(seed)[:STAGES]


def unseen(seed: int) -> list[Stage]:
    """Five more orders from the same seed."""
    return _family(seed)[STAGES:]


STREAMS = (
    Stream(
        name="block-mnist",
        description="MNIST in 10 orders of its 4×4 blocks, 60,000 images each; MLP 784-256-256-10",
        stages=stages,
        unseen=unseen,
        model=network,
        loss=cross_entropy,
        score=correct,
        chance=0.1,
    ),
)
