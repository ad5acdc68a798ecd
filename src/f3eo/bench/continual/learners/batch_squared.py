"""The "Fisher" of most code for elastic weight consolidation: gradients of batches, squared."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.continual import Importance
from f3eo.optimizer.past import Data
from f3eo.tensors import add_to, filled, multiplied, scaled


class BatchSquared(Importance):
    """Ω = (1/N) Σ_b ḡ_b ∘ ḡ_b with ḡ_b the mean gradient of batch b, of N batches.

    It is not the diagonal of the Fisher matrix, the mean of ∇ℓ_i ∘ ∇ℓ_i. Where single gradients
    are independent, of a batch of B samples E ḡ_b ∘ ḡ_b = diag F/B + (1 − 1/B) (E ∇ℓ) ∘ (E ∇ℓ): at
    a minimum 1/B of it, so that it needs B times the strength; elsewhere another quantity. It
    stands here to show the difference to `f3eo.continual.Exact`.
    """

    @torch.enable_grad()
    def measure(
        self, model: nn.Module | Iterable[Tensor], closure: Closure | None, data: Data | None
    ) -> dict[Tensor, Tensor]:
        """See `Importance.measure`.

        Raises:
            ValueError: no closure, no data, or no batch in it.
        """
        parameters = list(model.parameters() if isinstance(model, nn.Module) else model)
        sums, batches = [torch.zeros_like(p) for p in parameters], 0
        if closure is not None:
            for batch in data or ():
                loss = closure(*batch).mean()
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
                gradient = filled(found, parameters)
                add_to(sums, multiplied(gradient, gradient))
                batches += 1
        if not batches:
            raise ValueError(
                f"BatchSquared measures on the task that ends, received {batches} batches and the "
                f"closure {closure!r}: consolidate(model, closure, data) with its batches"
            )
        return dict(zip(parameters, scaled(sums, 1 / batches), strict=True))
