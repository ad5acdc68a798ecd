"""One head for each stage in one output layer; the labels say which.

Label l of stage t (from 0) is coded as l + C t, C the number of classes of a stage, and output
l + C t is its logit. The code is the only place that knows the stage: a learner takes (x, y).
"""

from torch import Tensor

from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.tasks.task import cross_entropy


def coded(labels: Tensor, stage: int, classes: int) -> Tensor:
    """Labels of a stage, l -> l + C t.

    Args:
        labels: (N,), in 0 … classes − 1.
        stage: t, from 0.
        classes: C, the number of classes of every stage.
    """
    return labels + classes * stage


def own_head(logits: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The logits of each sample's own head, and its label there; other heads have no part in it.

    Args:
        logits: (N, classes · heads).
        y: coded labels (N,).
        classes: C, the number of classes of every stage.

    Returns:
        Logits (N, classes) and labels (N,) in 0 … classes − 1.
    """
    heads = logits.unflatten(-1, (-1, classes))
    own = (y // classes)[:, None, None].expand(-1, 1, classes)
    return heads.gather(1, own).squeeze(1), y % classes


def head_loss(logits: Tensor, y: Tensor, classes: int) -> Tensor:
    """Cross-entropy (N,) in nats within each sample's own head; arguments as in `own_head`."""
    return cross_entropy(*own_head(logits, y, classes))


def head_correct(logits: Tensor, y: Tensor, classes: int) -> Tensor:
    """1 where the label's logit is the largest of its head, else 0; arguments as in `own_head`."""
    return correct(*own_head(logits, y, classes))
