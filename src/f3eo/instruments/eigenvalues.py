"""The spectrum of F̂, G and H, and what it says: log det and effective dimension."""

from collections.abc import Iterable
from typing import Any

from torch import Generator, Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.instruments.decomposition import Spectrum, spectrum_of
from f3eo.instruments.factors import MEMORY
from f3eo.instruments.means import Estimate
from f3eo.instruments.operator import Operator
from f3eo.instruments.passes import Data


def spectrum(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    of: str = "fisher",
    method: str = "auto",
    top: int = 10,
    steps: int = 64,
    probes: int = 8,
    memory: int = MEMORY,
    generator: Generator | None = None,
) -> Spectrum:
    """Eigenvalues of F̂, G or H of the mean loss over all data (`f3eo.instruments.operator`).

    - "gram": F̂ and G have the eigenvalues of the Gram matrix of their factors over N, and zeros.
      Exact; R×R with R = N, or N·C for G.
    - "dense": the matrix itself. Exact; P products.
    - "lanczos": stochastic Lanczos quadrature. For z_s of random signs, m steps of Lanczos from z_s
      give nodes and weights with z_sᵀ f(M) z_s ≈ Σ_j w_sj f(λ_sj), exact for polynomials of degree
      2m − 1; its mean over z is Tr f(M). Memory m·P. The top eigenpairs are those of the probe with
      the smallest residuals.
    - "auto": the smaller one of the first two up to 2,048 rows, else "lanczos".

    Args:
        model: a module, or its parameters; those that require no gradient do not count. Measured
            in the mode that the model is in, which is left as it was.
        closure: called with the arguments of a batch; returns per-sample losses or a likelihood, a
            likelihood for G.
        data: batches, such as a DataLoader or `[(x, y)]`; N samples.
        of: "fisher" (empirical, the default), "gauss_newton" (the true Fisher matrix where a sample
            has one position) or "hessian".
        method: see above; default "auto".
        top: how many eigenpairs are returned, at least 0; default 10. Fewer where there are fewer
            nonzero ones.
        steps: m ≥ 1, for Lanczos; default 64.
        probes: S ≥ 1, for Lanczos; default 8.
        memory: bytes, see `gram`.
        generator: source of the signs; default torch's global one.

    Returns:
        Nodes and weights, the top eigenpairs, and from these log det, effective dimension and the
        trace of any function (`Density`); for the matrix of all data instead of the mean, with
        `factor=found.samples`.

    Raises:
        ValueError: an argument is out of range, or "gram" of a Hessian; see `Operator` and `gram`.
        TypeError: G of losses without a likelihood.

    Source: Ubaru, Chen & Saad 2017; Ghorbani et al. 2019 (1901.10159).
    """
    operator = Operator(model, closure, data, of)
    return spectrum_of(
        operator,
        method=method,
        top=top,
        steps=steps,
        probes=probes,
        memory=memory,
        generator=generator,
    )


def log_det(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    alpha: float,
    *,
    factor: float = 1.0,
    **options: Any,
) -> Estimate:
    """log det(c·M + α I), c = 1 the matrix of the mean loss, c = N of the whole data.

    Args:
        model, closure, data: see `spectrum`.
        alpha: α > 0.
        factor: c; default 1.
        options: of `spectrum`.

    Returns:
        The value with its standard error over probes, 0 where exact (`Density.log_det`).

    Raises:
        ValueError, TypeError: see `spectrum` and `Density.log_det`.
    """
    found = spectrum(model, closure, data, **{"top": 0, **options})
    return found.log_det(alpha, factor=factor)


def effective_dimension(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    alpha: float,
    *,
    factor: float = 1.0,
    **options: Any,
) -> Estimate:
    """γ = Σ c λ/(c λ + α), the number of parameters that the data determine (MacKay 1992).

    Args:
        model, closure, data: see `spectrum`.
        alpha: α > 0.
        factor: c; default 1, the mean loss. With c = N, α is the precision of a prior.
        options: of `spectrum`.

    Returns:
        The value with its standard error over probes, 0 where exact.

    Raises:
        ValueError, TypeError: see `spectrum` and `Density.effective_dimension`.
    """
    found = spectrum(model, closure, data, **{"top": 0, **options})
    return found.effective_dimension(alpha, factor=factor)
