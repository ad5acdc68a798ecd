"""Label noise: a fixed share of wrong training labels."""

import torch

from f3eo.bench.tasks.task import Data, Samples

SEED = 0


def noisy(data: Data, share: float, classes: int) -> Data:
    """Replace a share of the training labels by another class, uniformly; the test set is clean.

    The same labels change at every call.

    Args:
        data: data with labels (N,) in 0 … classes − 1.
        share: share of wrong training labels, in [0, 1]; round(share · N) change.
        classes: number of classes.
    """
    generator = torch.Generator().manual_seed(SEED)
    y = data.train.y.clone()
    wrong = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    shift = torch.randint(1, classes, (len(wrong),), generator=generator)
    y[wrong] = (y[wrong] + shift) % classes
    return data._replace(train=Samples(data.train.x, y))
