"""The Laplace approximation."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Generator

from f3eo.instruments.decomposition import spectrum_of
from f3eo.instruments.density import Density
from f3eo.instruments.free_energy.posterior import Posterior, check_curvature, losses_of
from f3eo.instruments.free_energy.prior import GaussianPrior, Prior
from f3eo.instruments.free_energy.record import Energy
from f3eo.instruments.free_energy.structures import diagonal, kronecker
from f3eo.instruments.means import Estimate
from f3eo.instruments.operator import Operator


class Laplace(Posterior):
    """q = N(θ, H⁻¹) with H = N G + α I, and the prior N(μ, α⁻¹ I).

        accuracy    −N L − ½ γ,  γ = Tr(N G H⁻¹)             exact to second order
        complexity  ½ (α ‖θ − μ‖² − γ + log det H − P log α)  exact

    The half of γ cancels in the free energy, which is minus the Laplace evidence,

        −F = log p(D|θ) + log p(θ) − ½ log det(H/2π),

    the evidence itself for a linear-Gaussian model at its maximum a posteriori. α without a value
    is at MacKay's fixed point α ‖θ − μ‖² = γ, which minimises F, found by bisection: it has one
    root. `Energy.dimension` is γ. The standard error of the accuracy is over ℓ_i alone.

    Args:
        structure: of G. "full" (default): all of it; exact where P or the number of factors is at
            most 2,048, else by Lanczos quadrature, whose error is in `complexity`. "diagonal": its
            diagonal. "kronecker": L ⊗ R for each weight, see
            `f3eo.instruments.free_energy.structures.kronecker`.
        of: "gauss_newton" (default; the closure returns a likelihood) or "fisher", the empirical
            Fisher matrix in place of G.
        steps, probes, generator: of `f3eo.instruments.spectrum`, for "full".

    Raises:
        ValueError: an unknown structure or `of`; in use, no α* exists.

    Source: MacKay 1992, A practical Bayesian framework for backpropagation networks; Immer et al.
    2021 (2104.04975); Daxberger et al. 2021 (2106.14806), whose `laplace-torch` gives the same.
    """

    priors = (GaussianPrior,)

    def __init__(
        self,
        structure: str = "full",
        *,
        of: str = "gauss_newton",
        steps: int = 64,
        probes: int = 8,
        generator: Generator | None = None,
    ) -> None:
        if structure not in STRUCTURES:
            raise ValueError(
                f"structure is one of {', '.join(map(repr, STRUCTURES))}, received {structure!r}"
            )
        self.structure = structure
        self.of = check_curvature(of)
        self.steps = steps
        self.probes = probes
        self.generator = generator

    def measure(self, operator: Operator, prior: Prior) -> Energy:
        """See `Posterior.measure`."""
        assert isinstance(prior, GaussianPrior)
        fit, density = losses_of(operator), STRUCTURES[self.structure](self, operator)
        count, squared = fit.samples, prior.squared_distance(operator.parameters)
        precision = prior.precision
        if precision is None:
            precision = fixed_point(density, count, squared)
        dimension = density.effective_dimension(precision, factor=count)
        # Both in one, for their error: log det(H/α) − γ.
        ratio = count / precision
        divergence = density.trace(lambda x: (ratio * x).log1p() - ratio * x / (1 + ratio * x))
        value = 0.5 * (precision * squared + divergence.value)
        return Energy(
            fits=-fit.losses - 0.5 * dimension.value / count,
            weights=fit.weights,
            complexity=Estimate(value, 0.5 * divergence.error),
            precision=precision,
            dimension=dimension,
        )


def fixed_point(density: Density, count: float, squared: float) -> float:
    """α with α ‖θ − μ‖² = γ(α), by bisection: the left side grows with α, and γ falls.

    Args:
        density: of G.
        count: N.
        squared: ‖θ − μ‖².

    Raises:
        ValueError: there is none, since θ = μ or G = 0.
    """
    reach = float((density.nodes * (density.weights > 0)).max())
    if not (squared > 0 and reach > 0):
        raise ValueError(
            f"there is no best precision for parameters at the prior's mean or data that determine "
            f"none (‖θ − μ‖² = {squared:.4g}, largest eigenvalue {reach:.4g}): give "
            f"GaussianPrior(precision)"
        )

    def excess(alpha: float) -> float:
        return density.effective_dimension(alpha, factor=count).value - alpha * squared

    high = density.size / squared
    low = high
    while excess(low) <= 0:
        low /= 16
    while high / low > 1 + 1e-14:
        middle = (low * high) ** 0.5
        if middle in (low, high):
            break
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low * high) ** 0.5


def _full(posterior: Laplace, operator: Operator) -> Density:
    return spectrum_of(
        operator,
        top=0,
        steps=posterior.steps,
        probes=posterior.probes,
        generator=posterior.generator,
    )


STRUCTURES: Mapping[str, Callable[[Laplace, Operator], Density]] = MappingProxyType(
    {
        "full": _full,
        "diagonal": lambda posterior, operator: diagonal(operator),
        "kronecker": lambda posterior, operator: kronecker(operator),
    }
)
