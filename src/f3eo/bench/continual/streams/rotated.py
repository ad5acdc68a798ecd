"""Rotated MNIST: each stage turns all images by 9 degrees more.

Usual protocols: angles drawn from [0, 180) for each of 20 tasks (GEM, arXiv 1706.08840); 20 tasks
at (t − 1) · 9 degrees less a draw from [0, 9) (the code of arXiv 2006.06958 and 2010.04495).
Here: 20 tasks at 0, 9, …, 171 degrees without that draw. So halfway means halfway, the first task
is MNIST itself, and the data are the same for every seed: seeds differ in initialisation and in
the order of samples. An angle between two stages asks for interpolation, one beyond the last for
extrapolation. At 180 degrees a 6 is a 9.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from f3eo.bench.continual.streams.images import FEW, SIDE, image_stage, mnist, network
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream
from f3eo.bench.tasks.task import Samples, cross_entropy

STAGES, DEGREES = 20, 9.0
BETWEEN = (4.5, 49.5, 94.5, 139.5)
BEYOND = (180.0, 198.0, 216.0)
CHUNK = 10_000
"""Images that are turned at once; each takes 9 kB meanwhile."""


def rotate(pixels: Tensor, degrees: float) -> Tensor:
    """Images turned to the left about their centre: bilinear interpolation, black outside.

    Args:
        pixels: bytes (N, 784).
        degrees: the angle; 90 is `torch.rot90` of rows and columns.

    Returns:
        Bytes (N, 784), rounded.
    """
    turn = math.radians(degrees)
    cosine, sine = math.cos(turn), math.sin(turn)
    matrix = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]])
    grid = F.affine_grid(matrix, [1, 1, SIDE, SIDE], align_corners=False)
    turned = [
        # All images are channels of one image, so that the grid is read once.
        F.grid_sample(part.view(1, -1, SIDE, SIDE).float(), grid, align_corners=False)
        .round_()
        .to(torch.uint8)
        .view(-1, SIDE**2)
        for part in pixels.split(CHUNK)
    ]
    return torch.cat(turned)


def _turned(images: Samples, degrees: float) -> Samples:
    return images._replace(x=rotate(images.x, degrees))


def _stage(degrees: float, train: int | None = None) -> Stage:
    turned = partial(_turned, degrees=degrees)
    return image_stage(f"{degrees:g}°", mnist, turned, train, alone=True)


def stages(seed: int) -> list[Stage]:
    """MNIST at 0, 9, …, 171 degrees, whatever the seed."""
    return [_stage(DEGREES * number) for number in range(STAGES)]


def unseen(seed: int) -> list[Stage]:
    """MNIST at four angles halfway between those of the stages, and at three beyond the last.

    They have 5,000 training images.
    """
    return [_stage(degrees, FEW) for degrees in (*BETWEEN, *BEYOND)]


STREAMS = (
    Stream(
        name="rotated-mnist",
        description="MNIST at 0, 9, … 171 degrees, 60,000 images each; MLP 784-256-256-10",
        stages=stages,
        unseen=unseen,
        tuned_on=STAGES,
        model=network,
        loss=cross_entropy,
        score=correct,
        chance=0.1,
    ),
)
