"""Tables of measurements: a fixed split, standardised features."""

import numpy
import torch

from f3eo.bench.tasks.task import Data, Samples


def split(x: numpy.ndarray, y: numpy.ndarray, train: float) -> Data:
    """Split a table into two parts with equal class shares, and standardise its features.

    Args:
        x: features (N, D).
        y: classes (N,).
        train: share of the training part, in (0, 1).

    Returns:
        Data whose features have mean 0 and standard deviation 1 on the training part.
    """
    from sklearn.model_selection import train_test_split  # imported here because it is slow
    from sklearn.preprocessing import StandardScaler

    known, unseen = train_test_split(
        numpy.arange(len(y)), train_size=train, stratify=y, random_state=0
    )
    scaled = torch.as_tensor(StandardScaler().fit(x[known]).transform(x), dtype=torch.float32)
    labels = torch.as_tensor(y, dtype=torch.int64)
    return Data(Samples(scaled[known], labels[known]), Samples(scaled[unseen], labels[unseen]))
