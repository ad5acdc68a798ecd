"""Split MNIST: five stages with two digits each, in the three scenarios of van de Ven and Tolias.

They differ in what is asked, not in the images (arXiv 1904.07734): which of the two digits, the
stage being known (task-incremental, a head for each stage); is it the first or the second of its
pair (domain-incremental, two outputs); which of the ten (class-incremental, one head).
Departure: the seed draws no order; the pairs are 0 1, 2 3, … 8 9, as there.
"""

from functools import partial

from f3eo.bench.continual.streams.heads import coded, head_correct, head_loss
from f3eo.bench.continual.streams.images import image_stage, mnist, network
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream, none
from f3eo.bench.tasks.task import Samples, cross_entropy

STAGES, CLASSES = 5, 2


def pair(images: Samples, stage: int) -> Samples:
    """The images of the digits 2t and 2t + 1, with labels 0 and 1; `stage` is t, from 0."""
    two = images.at(images.y // CLASSES == stage)
    return two._replace(y=two.y % CLASSES)


def coded_pair(images: Samples, stage: int) -> Samples:
    """As `pair`, with labels coded by the stage: those of the ten digits."""
    two = pair(images, stage)
    return two._replace(y=coded(two.y, stage, CLASSES))


def digits(seed: int) -> list[Stage]:
    """Five pairs of digits; the label is the digit, which is its place in its stage's head, too."""
    return [
        image_stage(f"{2 * t} {2 * t + 1}", mnist, partial(coded_pair, stage=t))
        for t in range(STAGES)
    ]


def parity(seed: int) -> list[Stage]:
    """Five pairs of digits; the label is 0 for the first and 1 for the second digit of a pair."""
    return [
        image_stage(f"{2 * t} {2 * t + 1}", mnist, partial(pair, stage=t)) for t in range(STAGES)
    ]


DATA = "MNIST in five pairs of digits, about 12,000 images each"

CLASS = Stream(
    name="split-mnist-class",
    description=f"{DATA}; which of ten digits, one head; MLP 784-256-256-10",
    stages=digits,
    unseen=none,
    model=network,
    loss=cross_entropy,
    score=correct,
    chance=0.1,
)

DOMAIN = Stream(
    name="split-mnist-domain",
    description=f"{DATA}; first or second of its pair, two outputs; MLP 784-256-256-2",
    stages=parity,
    unseen=none,
    model=partial(network, CLASSES),
    loss=cross_entropy,
    score=correct,
    chance=0.5,
)

TASK = Stream(
    name="split-mnist-task",
    description=f"{DATA}; which of the two, a head for each stage; MLP 784-256-256-10",
    stages=digits,
    unseen=none,
    model=network,
    loss=partial(head_loss, classes=CLASSES),
    score=partial(head_correct, classes=CLASSES),
    chance=0.5,
)

STREAMS = (CLASS, DOMAIN, TASK)
