"""The smallest weights set to zero, without retraining."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.utils.prune import L1Unstructured


def pruned(weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Every matrix and kernel without the share of its entries that is smallest in magnitude.

    round(share · n) of the n entries of each tensor become 0. Tensors of less than two dimensions
    (biases, norms) stay as they are.

    Args:
        weights: parameters by name.
        share: in [0, 1).

    Returns:
        New tensors by name.

    Raises:
        ValueError: the share is outside [0, 1).

    Source: Han et al. 2015, arXiv 1506.02626, without retraining; each layer by itself.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the pruned share must be in [0, 1), got {share}")
    cut = L1Unstructured(float(share))
    return {name: cut.prune(w.detach()) if w.dim() > 1 else w for name, w in weights.items()}
