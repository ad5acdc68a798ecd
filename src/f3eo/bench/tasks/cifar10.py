"""CIFAR-10: colour photographs of 32×32 pixels in ten classes."""

from functools import partial

import numpy
import torch
from torch.nn import functional as F

from f3eo.bench.models.resnet import build
from f3eo.bench.tasks import data
from f3eo.bench.tasks.corruption import IMAGES
from f3eo.bench.tasks.task import Data, Samples, Task


def load(train: int, shrink: int = 1) -> Data:
    """The first training images and all test images, standardised per channel.

    Args:
        train: number of training images.
        shrink: side of the square of pixels that is averaged into one; default 1.
    """
    images = data.cifar10(train)

    def samples(x: numpy.ndarray, y: numpy.ndarray) -> Samples:
        pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(numpy.float32)) / 255
        pixels = F.avg_pool2d(pixels, shrink)
        return Samples(pixels, torch.from_numpy(y.astype(numpy.int64)))

    known, unseen = samples(*images.train), samples(*images.test)
    deviation, mean = torch.std_mean(known.x, (0, 2, 3), keepdim=True)
    known, unseen = (part._replace(x=(part.x - mean) / deviation) for part in (known, unseen))
    return Data(known, unseen, images.source)


SMALL = Task(
    name="cifar10-10k",
    description="CIFAR-10, 10,000 images to train on and 10,000 to test; "
    "shrunk to 16×16 pixels; ResNet-8 with GroupNorm, its first convolution of stride 2",
    load=partial(load, 10_000, shrink=2),
    model=partial(build, 1, stride=2),
    batch=100,
    budget=1_600,
    target=0.5,
    evaluations=20,
    probe=100,
    curve_test=500,
    corruptions=IMAGES,
)
"""Sixteen epochs, ten seconds of training; with fewer epochs no method overfits."""

WHOLE = Task(
    name="cifar10",
    description="CIFAR-10, 50,000 images to train on and 10,000 to test; ResNet-20 with GroupNorm",
    load=partial(load, 50_000),
    model=partial(build, 3),
    batch=128,
    budget=12_000,
    target=0.82,
    probe=1_000,
    curve_test=2_000,
    corruptions=IMAGES,
)
"""Thirty epochs: hours on a CPU, minutes on a GPU."""

TASKS = (SMALL, WHOLE)
