"""MNIST, then Fashion-MNIST: two stages with nothing in common but ten outputs."""

from f3eo.bench.continual.streams.images import fashion, image_stage, mnist, network
from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream, none
from f3eo.bench.tasks.task import cross_entropy


def stages(seed: int) -> list[Stage]:
    """Digits, then clothes, whatever the seed."""
    return [
        image_stage("MNIST", mnist, alone=True),
        image_stage("Fashion-MNIST", fashion, alone=True),
    ]


STREAMS = (
    Stream(
        name="mnist-fashion",
        description="MNIST, then Fashion-MNIST, 60,000 images each; one head; MLP 784-256-256-10",
        stages=stages,
        unseen=none,
        model=network,
        loss=cross_entropy,
        score=correct,
        chance=0.1,
        tuned_on=2,
    ),
)
