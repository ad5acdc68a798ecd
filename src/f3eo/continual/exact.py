"""Importance by the exact diagonal of the Fisher matrix."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.continual.by_parameter import ByParameter, parameters_of
from f3eo.continual.importance import Importance
from f3eo.instruments import diagonal
from f3eo.instruments.labels import labels_named
from f3eo.optimizer.past import Data
from f3eo.tensors import wide


class Exact(Importance):
    """Ω = diag F = Σ_i ω_i ∇ℓ_i ∘ ∇ℓ_i over the data that `consolidate` is given.

    It is the mean of squared gradients of single samples at θ*, and not the square of a batch's
    mean gradient, which is 1/B of it for independent ones and vanishes at a minimum. Multiply the
    strength by the number of samples to get the posterior of the task (Kirkpatrick et al. 2017).

    Args:
        labels: "data" are those observed; "drawn" from the model, or "exact", the mean over all
            labels of the model, give the Fisher matrix itself and need a closure that returns a
            likelihood. Default "data".
        generator: source of drawn labels; default torch's global one.

    Raises:
        ValueError: other labels.

    Source: Kirkpatrick et al. 2017 (1612.00796), eq. 3.
    """

    def __init__(self, labels: str = "data", generator: torch.Generator | None = None) -> None:
        labels_named(labels)
        self.labels = labels
        self.generator = generator

    def measure(
        self, model: nn.Module | Iterable[Tensor], closure: Closure | None, data: Data | None
    ) -> ByParameter:
        """See `Importance.measure`.

        Raises:
            ValueError: no closure or no data.
        """
        if closure is None or data is None:
            raise ValueError(
                "Exact measures on the task that ends: consolidate(closure, data) with its "
                "batches, such as the DataLoader, or use FromSteps(), which needs none"
            )
        parameters = parameters_of(model)
        asked = model if isinstance(model, nn.Module) else parameters
        found = diagonal(asked, closure, data, labels=self.labels, generator=self.generator)
        named = model.named_parameters() if isinstance(model, nn.Module) else ()
        names = {id(p): name for name, p in named}
        values = ((p, found.get(names.get(id(p), id(p)))) for p in parameters)
        return {p: value.to(wide(p)) for p, value in values if value is not None}
