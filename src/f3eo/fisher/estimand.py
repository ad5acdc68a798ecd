"""What every estimator estimates: the one place for quantity, power, factor, sign and mean.

With the losses ℓ_i of B samples and their gradients ∇ℓ_i in the parameters θ:

    loss                L = Σ_i ω_i ℓ_i                      g = ∇L = Σ_i ω_i ∇ℓ_i
    trace               Tr(D F D) = Σ_i ω_i ‖D ∇ℓ_i‖²
    structure gradient  h = (1/p) ∇ Σ_i ω_i a_i ‖D ∇ℓ_i‖^p = Σ_i ω_i a_i ‖D ∇ℓ_i‖^(p−2) H_i D² ∇ℓ_i

Quantity. With observed labels F is the empirical Fisher matrix, Tr F̂ where the difference matters;
with labels drawn from the model (`ModelSampled`) it is the true one. ‖·‖ is over the structured
parameters.

Metric. D is a diagonal that follows the parameters (`f3eo.fisher.metric`), held in ∇; D = 1 gives
the Fisher trace Tr F itself.

Emphasis. a_i says how much a sample counts in h (`f3eo.fisher.emphasis`), 1 by default; held in ∇.

Residuals. Where ∂ℓ_i/∂f_i is held, too (`f3eo.closure.residuals`), H_i is the part of ∇²ℓ_i that
comes from the curvature of the outputs f_i.

Power. p is `Estimator.power`. At p = 2, h = ½∇Tr(D F D). At p = 1 every sample moves by the same
distance, in the units of D. The reported trace is Tr(D F D) for every p.

Factor. ∇‖v‖^p = p ‖v‖^(p−2) H v for a gradient v; h leaves the factor p out, so ½ at p = 2.

Sign. ℓ_i is a negative log-probability and is minimized, and so is the mean of ‖∇ℓ_i‖^p: the update
descends both, along −g and −h.

Mean. ω_i = 1/B, or w_i / Σ_j w_j if samples have weights w_i (`f3eo.closure.weighted`). Every
quantity here is a mean over samples; a sum over the batch is B times as large.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.fisher.sample_norms import SampleNorms
from f3eo.tensors import add_to, scaled


@dataclass(frozen=True)
class Gradients:
    """The estimates from one batch, all detached.

    Args:
        loss: L, a scalar.
        weight: Σ w_i of the samples, a scalar; B without weights.
        gradient: ∇L, a tensor per parameter, None where the loss does not depend on it.
        structure: h, a tensor per structured parameter; None if not measured.
        trace: Tr(D F D), a scalar; None if not measured.
        error: the expected relative error of h by rounding and differences, a scalar; None if it is
            not known.
        norms: ‖D ∇ℓ_i‖² by sample and parameter; None if not measured, or not kept.
        squares: Σ_i ω_i ∇ℓ_i ∘ ∇ℓ_i, the diagonal of F̂ without D, a tensor per structured
            parameter in float32 or wider; None if the problem did not ask for it.
    """

    loss: Tensor
    weight: Tensor | int
    gradient: list[Tensor | None]
    structure: list[Tensor] | None
    trace: Tensor | None
    error: Tensor | None = None
    norms: SampleNorms | None = None
    squares: list[Tensor] | None = None

    @classmethod
    def nothing(cls, parameters: Sequence[Tensor]) -> "Gradients":
        """Of a batch without samples, whose weight is 0.

        Args:
            parameters: of the gradient, which is None for each.
        """
        zero = parameters[0].new_zeros(()) if parameters else torch.zeros(())
        return cls(zero.detach(), 0, [None] * len(parameters), None, None)

    @property
    def empty(self) -> bool:
        """Whether these are `nothing`: of no samples."""
        return isinstance(self.weight, int) and self.weight == 0

    def merged(self, other: "Gradients") -> "Gradients":
        """The estimates from both batches together.

        With W = W₁ + W₂ the sum of their weights, each of L, ∇L, h, Tr F and squares becomes
        (W₁ x₁ + W₂ x₂)/W. That is the estimate from the joint batch if `Estimator.additive`. What
        is missing in ∇L counts as zero; what else is missing in one is missing in the result. The
        error is the larger one. A batch without samples adds nothing.
        """
        if self.empty or other.empty:
            return other if self.empty else self
        total = self.weight + other.weight
        a, b = self.weight / total, other.weight / total
        error = max((e for e in (self.error, other.error) if e is not None), default=None)
        structure = squares = None
        if self.structure is not None and other.structure is not None:
            structure = _mean(self.structure, other.structure, a, b)
        if self.squares is not None and other.squares is not None:
            squares = _mean(self.squares, other.squares, a, b)
        trace = None
        if self.trace is not None and other.trace is not None:
            trace = _share(a, self.trace) + _share(b, other.trace)
        norms = None
        if self.norms is not None and other.norms is not None:
            norms = self.norms.joined(other.norms)
        return Gradients(
            loss=_share(a, self.loss) + _share(b, other.loss),
            weight=total,
            gradient=_mean(self.gradient, other.gradient, a, b),
            structure=structure,  # pyright: ignore[reportArgumentType]  (all are present)
            trace=trace,
            error=error,
            norms=norms,
            squares=squares,  # pyright: ignore[reportArgumentType]
        )


def _mean(
    x: Sequence[Tensor | None], y: Sequence[Tensor | None], a: Tensor | float, b: Tensor | float
) -> list[Tensor | None]:
    """a·x + b·y for every tensor; None counts as zero, and stays None where both are."""
    pairs = list(zip(x, y, strict=True))
    present = [(u, v) for u, v in pairs if u is not None and v is not None]
    us, vs = [u for u, _ in present], [v for _, v in present]
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        sums = iter([_share(a, u) + _share(b, v) for u, v in present])
    else:
        products = scaled(us, a) if present else []
        if present:
            add_to(products, vs, b)
        sums = iter(products)
    means: list[Tensor | None] = []
    for u, v in pairs:
        if u is not None and v is not None:
            means.append(next(sums))
        elif u is not None:
            means.append(_share(a, u))
        else:
            means.append(_share(b, v) if v is not None else None)
    return means


def _share(share: Tensor | float, value: Tensor) -> Tensor:
    """share · value, and 0 for a share of 0, where the value may not be finite."""
    if not isinstance(share, Tensor):
        return share * value
    share = share.to(value)
    return torch.where(share == 0, 0, share * value)
