"""Losses with weights, as a closure returns them."""

import torch
from torch import Tensor


class Weighted:
    """Losses with weights, for closures: L = Σ w ℓ / Σ w over all samples and positions.

    Measurements of parts of a batch (`fraction`, `chunk`, `accumulate`) are averaged by their
    weights, so that they equal the measurement of the whole batch. Use weights 1 and 0 for a mean
    over kept tokens, or weights of classes or of importance sampling.

    Args:
        losses: shape (B,) or (B, …), as from `reduction="none"`.
        weights: constants ≥ 0. Either of the shape of the losses, or w_i of shape (B,); further
            dimensions of the losses are then averaged.

    Raises:
        TypeError: an argument is no tensor, the losses are not floating point, or the weights are
            complex.
        ValueError: the shapes do not fit, or the weights require a gradient. Weights that are
            negative or not finite are refused by `check`, after the closure has returned.
    """

    def __init__(self, losses: Tensor, weights: Tensor) -> None:
        for name, value in (("losses", losses), ("weights", weights)):
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"Weighted needs {name} as a tensor, received {type(value).__name__}"
                )
        if not losses.is_floating_point() or weights.is_complex():
            raise TypeError(
                f"Weighted needs floating point losses and real weights, received {losses.dtype} "
                f"and {weights.dtype}"
            )
        if losses.ndim == 0 or weights.shape not in (losses.shape, losses.shape[:1]):
            raise ValueError(
                f"Weighted needs losses (B, …) and weights of the same shape or (B,), received "
                f'{tuple(losses.shape)} and {tuple(weights.shape)}; use reduction="none" for the '
                f"losses, and weights.expand_as(losses) for weights that broadcast"
            )
        if weights.requires_grad:
            raise ValueError(
                "Weighted needs constant weights, received weights that require a gradient: use "
                "weights.detach(), or multiply the losses by a factor that is differentiated"
            )
        self.losses = losses
        self.weights = weights

    def check(self) -> None:
        """Check the values of the weights.

        Raises:
            ValueError: a weight is negative or not finite.
        """
        wrong = ~((self.weights >= 0) & (self.weights < torch.inf))
        if bool(wrong.any()):
            index = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(
                f"Weighted needs finite weights >= 0, received {float(self.weights[index])} at "
                f"{index}; use weight 0 for what does not count"
            )

    def per_sample(self) -> tuple[Tensor, Tensor]:
        """ℓ_i = Σ_t w_it ℓ_it / w_i and w_i = Σ_t w_it over the positions t, shape (B,) each.

        ℓ_i is 0 where w_i is 0.
        """
        dtype = torch.promote_types(self.losses.dtype, torch.float32)
        weights = self.weights.to(self.losses.device, dtype)
        if self.losses.ndim == 1:
            return self.losses, weights
        if weights.ndim == 1:
            return self.losses.flatten(1).mean(1), weights
        totals = weights.flatten(1).sum(1)
        inner = weights.flatten(1) / torch.where(totals > 0, totals, 1).unsqueeze(1)
        return (self.losses.flatten(1) * inner.to(self.losses)).sum(1), totals
