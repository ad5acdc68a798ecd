"""Per-sample scores of outputs."""

from torch import Tensor


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """1 where the largest logit is that of the label, else 0; the mean over positions.

    Args:
        logits: (N, C) or (N, T, C).
        y: (N,) or (N, T).

    Returns:
        Scores (N,).
    """
    hits = (logits.argmax(-1) == y).float()
    return hits if hits.dim() == 1 else hits.mean(1)


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """‖f − y‖² of each sample.

    Args:
        outputs, y: (N, …) of the same shape.

    Returns:
        Errors (N,).
    """
    return (outputs - y).square().flatten(1).sum(1)
