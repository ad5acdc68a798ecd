"""Stages of 28×28 images: MNIST and Fashion-MNIST as bytes, changed, then standardised.

Images stay bytes until a stage is loaded: 47 MB for 60,000 of them, where float32 takes 188 MB.
Both sets are standardised by MNIST's mean and deviation, as one sensor would deliver them.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import nn

from f3eo.bench.continual.streams.stream import Pick, Stage, recent
from f3eo.bench.models.mlp import mlp
from f3eo.bench.tasks.data import FASHION, MNIST, images
from f3eo.bench.tasks.data.idx import Part, Set
from f3eo.bench.tasks.task import Data, Samples

SIDE = 28
PIXELS = SIDE**2
MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's training images with pixels in [0, 1]."""

FEW = 5_000
"""Training images of an unseen stage: adaptation takes 20 batches at most."""

Change = Callable[[Samples], Samples]
"""Images as bytes (N, 784) and labels (N,) -> the same kind, of which there may be fewer."""


@lru_cache
def mnist(part: Part) -> Samples:
    """MNIST as it is: images (N, 784) as bytes and labels (N,)."""
    return _flat(MNIST, part)


@lru_cache
def fashion(part: Part) -> Samples:
    """Fashion-MNIST as it is: images (N, 784) as bytes and labels (N,)."""
    return _flat(FASHION, part)


def _flat(files: Set, part: Part) -> Samples:
    x, y = images(files, part)
    return Samples(torch.from_numpy(x.copy()).flatten(1), torch.from_numpy(y.astype("int64")))


def unchanged(images: Samples) -> Samples:
    """The images as they are."""
    return images


def image_stage(
    name: str,
    source: Callable[[Part], Samples],
    change: Change = unchanged,
    train: int | None = None,
    alone: bool = False,
) -> Stage:
    """A stage of standardised images, (byte / 255 − MEAN) / DEVIATION.

    Args:
        name: of the stage.
        source: `mnist` or `fashion`.
        change: what makes this stage differ from others; it treats training and test images alike;
            default `unchanged`.
        train: number of training images, from the first on; default None, all. Where little is
            trained on, e.g. on a stage never seen, the others need not be changed.
        alone: whether `change` leaves out no image and changes each by itself, so that some can be
            changed without the others; default False.
    """
    # The test images, 8 MB as bytes, are asked for after every stage.
    test = lru_cache(maxsize=1)(lambda: change(source("t10k")))

    def first() -> Samples:
        return Samples(*(part[:train] for part in source("train")))

    def load() -> Data:
        return Data(standardised(change(first())), standardised(test()))

    def some(pick: Pick) -> Samples:
        every = first()
        return standardised(change(every.at(pick(len(every.y)))))

    return Stage(name, partial(recent, load), lambda: standardised(test()), some if alone else None)


def standardised(images: Samples) -> Samples:
    """Images as bytes (N, 784) in float32, (byte / 255 − MEAN) / DEVIATION; labels as they are."""
    return images._replace(x=images.x.float().div_(255).sub_(MEAN).div_(DEVIATION))


def network(outputs: int = 10) -> nn.Module:
    """The usual model: 784 pixels, two hidden layers of 256 ReLU units.

    Args:
        outputs: number of outputs; default 10.
    """
    return mlp(PIXELS, 256, 256, outputs, activation=nn.ReLU)
