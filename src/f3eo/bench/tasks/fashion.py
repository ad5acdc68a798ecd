"""Fashion-MNIST (arXiv 1708.07747): clothes in ten classes, 5,000 images to train on."""

from dataclasses import replace
from functools import partial

import numpy
import torch
from torch import nn

from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.corruption import IMAGES
from f3eo.bench.tasks.data import FASHION, images
from f3eo.bench.tasks.noise import noisy
from f3eo.bench.tasks.task import Data, Samples, Task

TRAIN = 5_000
SIZES = "Fashion-MNIST, 5,000 images to train on and 10,000 to test"


def load(noise: float = 0.0) -> Data:
    """The first 5,000 training images and all test images, standardised.

    Args:
        noise: share of wrong training labels, in [0, 1]; default 0.
    """

    def samples(x: numpy.ndarray, y: numpy.ndarray) -> Samples:
        pixels = torch.from_numpy(x.astype(numpy.float32))[:, None] / 255
        return Samples(pixels, torch.from_numpy(y.astype(numpy.int64)))

    x, y = images(FASHION, "train")
    train, test = samples(x[:TRAIN], y[:TRAIN]), samples(*images(FASHION, "t10k"))
    mean, deviation = train.x.mean(), train.x.std()
    train, test = ((part._replace(x=(part.x - mean) / deviation)) for part in (train, test))
    return noisy(Data(train, test), noise, classes=10)


def cnn(width: int = 16) -> nn.Module:
    """Three convolutions of stride 2, each with twice the channels, and a linear layer.

    Args:
        width: channels of the first convolution; default 16.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
            nn.GroupNorm(4, outputs),
            nn.SiLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * 4 * 4, 10))


def flat(*widths: int) -> nn.Module:
    """A perceptron on the 784 pixels, with hidden layers of these widths."""
    return nn.Sequential(nn.Flatten(), mlp(28 * 28, *widths, 10))


CNN = Task(
    name="fashion-cnn",
    description=f"{SIZES}; three convolutions with GroupNorm",
    load=load,
    model=cnn,
    batch=50,
    budget=2_000,
    target=0.855,
    evaluations=20,
    probe=200,
    curve_test=1_000,
    corruptions=IMAGES,
)


def _noise(task: Task, percent: int, target: float) -> Task:
    return replace(
        task,
        name=f"{task.name}-noise{percent}",
        description=f"{task.description}; {percent} % of the training labels wrong",
        load=partial(load, percent / 100),
        target=target,
    )


MLP = Task(
    name="fashion-mlp",
    description=f"{SIZES}; MLP 784-128-128-10",
    load=load,
    model=partial(flat, 128, 128),
    batch=100,
    budget=4_000,
    target=0.845,
    probe=500,
    curve_test=2_000,
    corruptions=IMAGES,
)

FULL_BATCH = replace(
    MLP,
    name="large-batch",
    description="fashion-mlp with all 5,000 training images in every batch",
    batch=TRAIN,
    budget=400,
)
"""`fashion-mlp` in full batches; its runs take about as long."""

TASKS = (
    CNN,
    *(_noise(CNN, percent, target) for percent, target in ((20, 0.82), (40, 0.79), (60, 0.74))),
    MLP,
    *(_noise(MLP, percent, target) for percent, target in ((20, 0.81), (40, 0.78), (60, 0.72))),
    FULL_BATCH,
)
