"""How the loss gradient g lies to the curvature and to the structure gradient h."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Closure
from f3eo.curvature import DoubleBackward
from f3eo.curvature.hessian import hessian
from f3eo.curvature.vectors import flatten
from f3eo.fisher import Estimator, PerSample
from f3eo.instruments.passes import Data
from f3eo.instruments.sums import add, zeros
from f3eo.instruments.sweeps import Again


@dataclass(frozen=True)
class Alignment:
    """Of g = ∇L, its Hessian H and h; NaN where g or h is 0.

    Args:
        curvature: ⟨g, H g⟩/‖g‖² along the gradient, in nats per squared unit of θ; a gradient step
            at a rate above 2 over it raises the loss.
        cosine: ⟨g, h⟩/(‖g‖ ‖h‖), from −1 to 1. Above 0 a gradient step lowers the trace, too.
        off: ‖h − g ⟨g, h⟩/‖g‖²‖/‖h‖, the share of h that a step along g does not make, 0 to 1.
        gradient_norm: ‖g‖, in nats per unit of θ.
        structure_norm: ‖h‖.
    """

    curvature: float
    cosine: float
    off: float
    gradient_norm: float
    structure_norm: float


@torch.enable_grad()
def alignment(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    estimator: Estimator | None = None,
) -> Alignment:
    """⟨g, H g⟩/‖g‖², the cosine of g and h, and the share of h off g, over all data.

    g, H and h are means over all samples of the data (`f3eo.fisher.estimand`), which is swept
    twice; an iterator is written out as a list. Measured in the mode that the model is in, which is
    left as it was.

    Args:
        model, closure, data: see `f3eo.instruments.trace`.
        estimator: gives h, its power and its metric; default `PerSample(DoubleBackward())`: p = 1,
            Euclidean, exact to rounding.

    Raises:
        ValueError, TypeError: see `f3eo.instruments.trace`; an estimator that is no mean over
            samples.
    """
    estimator = PerSample(DoubleBackward()) if estimator is None else estimator
    if not estimator.additive:
        raise ValueError(
            f"alignment needs an estimator that is a mean over samples, PerSample(), Sign() or "
            f"ModelSampled(), since data comes in batches; received {estimator!r}"
        )
    again = Again.of(model, closure, data)
    gradient, structure = _sums(again, estimator)
    g, h = flatten(gradient), flatten(structure)
    along = g / g.norm()
    curvature, total = 0.0, 0.0
    for problem in again.problems():
        output = evaluate(problem, per_sample=True, differentiable=True)
        product = hessian(output, problem.parameters).product(along)
        if weight := float(output.shares.total):
            total += weight
            curvature += weight * float(along.dot(product.to(along)))
    cosine = along.dot(h) / h.norm()
    off = (h - along * along.dot(h)).norm() / h.norm()
    return Alignment(
        curvature=curvature / total,
        cosine=float(cosine),
        off=float(off),
        gradient_norm=float(g.norm()) / total,
        structure_norm=float(h.norm()) / total,
    )


def _sums(again: Again, estimator: Estimator) -> tuple[list[Tensor], list[Tensor]]:
    """Σ_i w_i ∇ℓ_i and W h, a tensor a parameter, in float64."""
    gradient: dict[int, Tensor] = {}
    structure: dict[int, Tensor] = {}
    for problem in again.problems():
        measured = estimator.gradients(problem)
        weight = float(measured.weight)
        pairs = (gradient, measured.gradient), (structure, measured.structure or [])
        for sums, values in pairs:
            for p, value in zip(problem.parameters, values, strict=True):
                add(sums.setdefault(id(p), zeros(p)), value, weight)
    return list(gradient.values()), list(structure.values())
