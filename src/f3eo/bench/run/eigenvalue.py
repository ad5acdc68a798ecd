"""The largest eigenvalue of the loss's Hessian, the sharpness that SAM and its kin speak of."""

import numpy
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from f3eo.bench.methods import Closure
from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.curvature.hessian import hessian

TOLERANCE = 1e-2

VECTORS = 10
"""That Lanczos keeps: eleven products are enough then for most networks."""


def top_eigenvalue(model: nn.Module, closure: Closure, x: Tensor, y: Tensor) -> float | None:
    """λ_max of ∇² mean ℓ by Lanczos with exact products H v, to a relative 1e-2.

    The start is a fixed random vector: the same model and samples give the same value.

    Args:
        model: its parameters that require a gradient are the P coordinates.
        closure: (x, y) -> per-sample losses.
        x, y: the samples; all in one graph.

    Returns:
        The eigenvalue, in units of the loss; None if Lanczos does not get there.
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    problem = Problem(closure, (x, y), parameters, [True] * len(parameters), model, None)
    product = hessian(evaluate(problem, per_sample=True, differentiable=True), parameters).product
    size = sum(p.numel() for p in parameters)

    def times(v: numpy.ndarray) -> numpy.ndarray:
        return product(torch.from_numpy(v).to(parameters[0])).cpu().numpy()

    kind = numpy.float64 if parameters[0].dtype == torch.float64 else numpy.float32
    operator = LinearOperator(shape=(size, size), matvec=times, dtype=kind)  # type: ignore[call-arg]
    start = numpy.random.default_rng(0).standard_normal(size)
    if not times(start).any():  # ARPACK refuses a matrix of zeros; sure of everything, it is one
        return 0.0
    try:
        found = eigsh(
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
    return float(found[0])
