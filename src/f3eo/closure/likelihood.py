"""Likelihoods: losses that are negative log-probabilities, from which labels can be drawn.

The loss of a sample is its mean over positions t, ℓ_i = Σ_t w_t · (−log p(y_it | x_i)) with w_t =
1/T, or 1/(number of kept positions) if some are ignored. In the mean over a batch every sample has
weight 1, or its number of kept positions (`per_token`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor


class Likelihood(ABC):
    """p_θ(y|x) with parameters f, logits or means, of shape (B, …) in `parameters`."""

    parameters: Tensor

    @abstractmethod
    def losses(self) -> Tensor:
        """ℓ_i = −log p_θ(y_i|x_i), averaged over positions; shape (B,)."""

    def weights(self) -> Tensor | None:
        """Weights of the samples in the mean over a batch, shape (B,); None if all are equal."""
        return None

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Labels ŷ ~ p_θ(·|x), detached, in the shape of the targets."""

    def drawn(self, generator: torch.Generator | None = None) -> "Likelihood":
        """The same p_θ(·|x) with labels that are drawn from it as `targets`.

        Raises:
            TypeError: a likelihood of one's own that has no `targets`.
        """
        if not hasattr(self, "targets"):
            raise TypeError(
                f"{type(self).__name__} keeps no labels in an attribute targets, so drawn ones "
                f"have no place: name it so, or override drawn()"
            )
        other = copy(self)
        other.targets = self.sample(generator)  # pyright: ignore[reportAttributeAccessIssue]
        return other

    @abstractmethod
    def root(self, noise: Tensor) -> Tensor:
        """S·noise with S Sᵀ = E_ŷ[∇_f ℓ ∇_f ℓᵀ], differentiable in f.

        With noise of zero mean and unit covariance, E‖Jᵀ S noise‖² is the trace of the true Fisher
        information of ℓ_i. The noise does not depend on θ, so the gradient is unbiased, too.

        Args:
            noise: the shape of `parameters`.
        """

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """Rademacher signs ±1 in the shape of `parameters`."""
        f = self.parameters
        device = generator.device if generator is not None else f.device
        signs = torch.randint(0, 2, f.shape, generator=generator, device=device)
        return (2 * signs - 1).to(f.device, f.dtype)

    def basis(self) -> Iterator[Tensor]:
        """Noise for an exact trace: each unit vector of one sample's f, the same for every sample.

        The sum of ‖Jᵀ S noise‖² over them is its expectation over `noise`.
        """
        f = self.parameters
        for k in range(f[0].numel() if len(f) else 0):
            unit = f.new_zeros(f.shape[1:].numel())
            unit[k] = 1
            yield unit.view(f.shape[1:]).expand(f.shape)


class Categorical(Likelihood):
    """Classes drawn from softmax(logits): ℓ = −log softmax(logits)[target].

    Args:
        logits: (B, …, C), floating point, the classes last.
        targets: (B, …), int64 classes in [0, C).
        ignore_index: target of positions that are left out of the mean, such as padding.
        per_token: whether the weight of a sample is its number of kept positions, so that the mean
            is that of `F.cross_entropy(…, reduction="mean")`. Default False: every sample has
            weight 1; one without kept positions has loss 0.

    Raises:
        ValueError, TypeError: the shapes or dtypes do not fit.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        ignore_index: int = -100,
        per_token: bool = False,
    ) -> None:
        if logits.ndim < 2 or logits.shape[:-1] != targets.shape:
            raise ValueError(
                f"Categorical needs logits (B, …, C) and targets (B, …), received "
                f"{tuple(logits.shape)} and {tuple(targets.shape)}; the classes are the last "
                f"dimension (F.cross_entropy has them second: use movedim(1, -1))"
            )
        if targets.is_floating_point() or targets.is_complex():
            raise TypeError(
                f"Categorical needs integer targets, received {targets.dtype}; use targets.long()"
            )
        self.parameters = logits
        self.targets = targets
        self.ignore_index = ignore_index
        self.per_token = per_token

    def weights(self) -> Tensor | None:
        """Number of kept positions of each sample, shape (B,), with `per_token`; else None."""
        if not self.per_token:
            return None
        kept = (self.targets != self.ignore_index).view(len(self.targets), -1)
        return kept.sum(1, dtype=torch.promote_types(self.parameters.dtype, torch.float32))

    def _position_weights(self) -> Tensor:
        kept = (self.targets != self.ignore_index).to(self.parameters.dtype)
        if kept.ndim == 1:
            return kept
        return kept / kept.flatten(1).sum(1).clamp(min=1).view(-1, *[1] * (kept.ndim - 1))

    def losses(self) -> Tensor:
        """−log softmax(logits)[target], averaged over kept positions; shape (B,)."""
        logits = self.parameters.movedim(-1, 1)
        losses = F.cross_entropy(
            logits, self.targets, reduction="none", ignore_index=self.ignore_index
        )
        return losses if losses.ndim == 1 else (losses * self._position_weights()).flatten(1).sum(1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Classes drawn from softmax(logits); ignored positions stay ignored."""
        p = self.parameters.detach().softmax(-1).flatten(0, -2)
        device = generator.device if generator is not None else p.device
        drawn = torch.multinomial(p.to(device), 1, generator=generator).to(p.device)
        kept = self.targets != self.ignore_index
        return torch.where(kept, drawn.view(self.targets.shape), self.targets)

    def root(self, noise: Tensor) -> Tensor:
        """w (√p∘ε − p ⟨√p, ε⟩): S = w (diag √p − p √pᵀ), S Sᵀ = w² (diag p − p pᵀ)."""
        log_p = self.parameters.log_softmax(-1)
        half = (0.5 * log_p).exp() * noise
        return self._position_weights().unsqueeze(-1) * (
            half - log_p.exp() * half.sum(-1, keepdim=True)
        )


class Gaussian(Likelihood):
    """Targets drawn from N(mean, std²): ℓ = ½((y − mean)/std)² + log std + ½ log 2π.

    Args:
        mean: (B, …), floating point.
        targets: (B, …), the same shape.
        std: standard deviation in units of the targets: a positive number or constant tensor that
            broadcasts against `mean`; default 1.

    Raises:
        ValueError: the shapes differ, or `std` is not positive or requires a gradient.
    """

    def __init__(self, mean: Tensor, targets: Tensor, std: Tensor | float = 1.0) -> None:
        if mean.ndim < 1 or mean.shape != targets.shape:
            raise ValueError(
                f"Gaussian needs mean and targets of one shape (B, …), received "
                f"{tuple(mean.shape)} and {tuple(targets.shape)}"
            )
        if isinstance(std, Tensor) and std.requires_grad:
            raise ValueError(
                "Gaussian needs a std that is not learned, since it has no Fisher information of a "
                "learned one; use std.detach(), or return per-sample losses"
            )
        if not bool((torch.as_tensor(std) > 0).all()):
            raise ValueError(f"Gaussian needs std > 0, received {std}")
        self.parameters = mean
        self.targets = targets
        self.std = torch.as_tensor(std, dtype=mean.dtype, device=mean.device)

    def losses(self) -> Tensor:
        """½((y − mean)/std)² + log std + ½ log 2π, averaged over further dimensions; shape (B,)."""
        z = (self.targets - self.parameters) / self.std
        losses = 0.5 * z.square() + self.std.log() + 0.5 * log(2 * pi)
        return losses if losses.ndim == 1 else losses.flatten(1).mean(1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + std · N(0, 1)."""
        mean = self.parameters.detach()
        device = generator.device if generator is not None else mean.device
        normal = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
        return mean + self.std * normal.to(mean.device)

    def root(self, noise: Tensor) -> Tensor:
        """w ε / std: S = w/std, w = 1/(size of one sample)."""
        return noise / (self.std * self.parameters.shape[1:].numel())
