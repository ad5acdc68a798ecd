"""The largest eigenvalue of the loss Hessian, also called sharpness."""

from collections.abc import Callable
from typing import Any

import numpy
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.curvature.hessian import hessian

TOLERANCE = 1e-2
"""Relative accuracy of the eigenvalue."""
VECTORS = 10
"""Lanczos vectors; with them eleven products are enough for most networks."""


def top_eigenvalue(model: nn.Module, closure: Callable[..., Tensor], *batch: Any) -> float | None:
    """λ_max(H), H = ∇² (1/B) Σ_i ℓ_i, by Lanczos with exact products H v, to a relative 1e-2.

    The start vector is fixed, so the same model and batch give the same value.

    Args:
        model: H is taken over its P parameters that require a gradient.
        closure: (*batch) -> per-sample losses ℓ_i, (B,).
        batch: arguments of the closure, with samples in dimension 0; one graph holds them all.

    Returns:
        The eigenvalue, in units of the loss; 0 for H = 0; None if Lanczos does not converge.
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    problem = Problem(closure, batch, parameters, [True] * len(parameters), model, None)
    product = hessian(evaluate(problem, per_sample=True, differentiable=True), parameters).product
    size = sum(p.numel() for p in parameters)

    def times(v: numpy.ndarray) -> numpy.ndarray:
        return product(torch.from_numpy(v).to(parameters[0])).cpu().numpy()

    kind = numpy.float64 if parameters[0].dtype == torch.float64 else numpy.float32
    operator = LinearOperator(shape=(size, size), matvec=times, dtype=kind)  # type: ignore[call-arg]
    start = numpy.random.default_rng(0).standard_normal(size)
    if not times(start).any():  # H = 0, as for a model with zero loss; ARPACK refuses it
        return 0.0
    try:
        eigenvalues = eigsh(
            operator,
            k=1,
            which="LA",
            v0=start,
            ncv=min(VECTORS, size),
            tol=TOLERANCE,  # type: ignore[arg-type]
            return_eigenvectors=False,
        )
    except ArpackNoConvergence:
        return None
    return float(eigenvalues[0])
