"""The gradient noise scale: how large a batch must be before its gradient is mostly signal."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher import PerSample
from f3eo.fisher.ghost import Products
from f3eo.instruments.grouping import Name, grouped, layers, names_of
from f3eo.instruments.means import Estimate, jackknife
from f3eo.instruments.norms import by_parameter, weights_of
from f3eo.instruments.passes import Data
from f3eo.instruments.sweeps import Again


@dataclass(frozen=True)
class NoiseScale:
    """Of the gradients g_i = ∇ℓ_i of N samples, with mean G and covariance Σ.

    Errors are those of the jackknife over samples, in closed form; NaN for fewer than three.

    Args:
        names: of the K parameters; `id`s where they have no names.
        weights: w_i, (N,), float64.
        squared: ‖g_i‖² in every parameter, (N, K), float64.
        products: ⟨g_i, S⟩ in every parameter with S = Σ_j w_j g_j, (N, K), float64.
        resultant: ‖S‖² in every parameter, (K,), float64.
    """

    names: list[Name]
    weights: Tensor
    squared: Tensor
    products: Tensor
    resultant: Tensor

    @property
    def samples(self) -> int:
        """N."""
        return len(self.weights)

    @property
    def variance(self) -> Estimate:
        """tr Σ without bias, in nats² per squared unit of θ."""
        return self._estimate(lambda signal, variance: variance)

    @property
    def signal(self) -> Estimate:
        """‖G‖² without bias, in nats² per squared unit of θ; may fall below 0 where it is small."""
        return self._estimate(lambda signal, variance: signal)

    @property
    def scale(self) -> Estimate:
        """tr Σ / ‖G‖², in samples; negative where `signal` is, which asks for more samples."""
        return self._estimate(lambda signal, variance: variance / signal)

    def share(self, batch: int) -> Estimate:
        """‖G‖² / (‖G‖² + tr Σ/B), the signal in E‖g_B‖² of a batch of B samples, from 0 to 1.

        Args:
            batch: B, at least 1.

        Raises:
            ValueError: B is below 1.
        """
        if batch < 1:
            raise ValueError(f"share needs a batch of at least 1 sample, received {batch}")
        return self._estimate(lambda signal, variance: signal / (signal + variance / batch))

    def by_parameter(self) -> dict[Name, "NoiseScale"]:
        """That of every parameter alone."""
        return {name: self._over([k]) for k, name in enumerate(self.names)}

    def by_layer(self) -> dict[Name, "NoiseScale"]:
        """That of every module's own parameters, by the module's name, "" at the root."""
        return {layer: self._over(own) for layer, own in layers(self.names).items()}

    def by_group(self, groups: Mapping[str, Iterable[Name]]) -> dict[str, "NoiseScale"]:
        """That of groups of parameters; see `Trace.by_group`."""
        return {group: self._over(own) for group, own in grouped(self.names, groups)}

    def _over(self, positions: list[int]) -> "NoiseScale":
        return replace(
            self,
            names=[self.names[k] for k in positions],
            squared=self.squared[:, positions],
            products=self.products[:, positions],
            resultant=self.resultant[positions],
        )

    def _estimate(self, function: Callable[[Tensor, Tensor], Tensor]) -> Estimate:
        counted = self.weights > 0
        w, q = self.weights[counted], self.squared[counted].sum(1)
        c, s = self.products[counted].sum(1), self.resultant.sum()
        sums = s, (w * q).sum(), (w**2 * q).sum(), w.sum(), (w**2).sum()
        # Without sample i: ‖S − w_i g_i‖² = ‖S‖² − 2 w_i ⟨g_i, S⟩ + w_i² ‖g_i‖².
        own = 2 * w * c - w**2 * q, w * q, w**2 * q, w, w**2
        rest = [total - part for total, part in zip(sums, own, strict=True)]
        return jackknife(function(*moments(*sums)), function(*moments(*rest)))


def moments(
    resultant: Tensor, first: Tensor, second: Tensor, weight: Tensor, squared_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """‖G‖² and tr Σ as U-statistics, the means over pairs of two samples.

        ‖G‖² = Σ_{i≠j} w_i w_j ⟨g_i, g_j⟩ / Σ_{i≠j} w_i w_j
             = (‖Σ_i w_i g_i‖² − Σ_i w_i² ‖g_i‖²) / ((Σ_i w_i)² − Σ_i w_i²)
        tr Σ = Σ_i w_i ‖g_i‖² / Σ_i w_i − ‖G‖²

    With equal weights ‖G‖² = ‖g_N‖² − tr Σ/N, and tr Σ is the sample variance over N − 1.

    Args:
        resultant: ‖Σ_i w_i g_i‖².
        first: Σ_i w_i ‖g_i‖².
        second: Σ_i w_i² ‖g_i‖².
        weight: Σ_i w_i.
        squared_weight: Σ_i w_i².
    """
    signal = (resultant - second) / (weight**2 - squared_weight)
    return signal, first / weight - signal


@torch.enable_grad()
def noise_scale(model: nn.Module | Iterable[Tensor], closure: Closure, data: Data) -> NoiseScale:
    """tr Σ/‖G‖², the batch size at which a batch's gradient is half signal, half noise.

    From all pairs of samples, so the batches of the data play no part. The data is swept twice, for
    Σ_i w_i ∇ℓ_i and for its products with every ∇ℓ_i, and must give the same samples both times (an
    augmentation that draws from a generator of its own does not); an iterator is written out as a
    list. Measured in the mode that the model is in, which is left as it was.

    Args:
        model, closure, data: see `f3eo.instruments.trace`.

    Returns:
        The noise scale, its parts, and the same by parameter, layer and group, with errors.

    Raises:
        ValueError, TypeError: see `f3eo.instruments.trace`; fewer than two samples of weight > 0.

    Source: McCandlish et al. 2018, 1812.06162, section 2.2 and appendix A; by layer Gray et al.
    2024, 2411.00999.
    """
    again = Again.of(model, closure, data)
    total = again.gradient_sum()
    estimator, names = PerSample(), list[Name]()
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    resultant = torch.stack([s.square().sum().cpu() for s in total.values()])
    for problem in again.problems():
        names = names or names_of(problem.model, problem.parameters)
        ghost = estimator.record(problem, differentiable=False)
        squared = by_parameter(ghost.norms(ghost.losses).by_leaf, ghost)
        products = by_parameter(ghost.forms(Products(total), ghost.losses), ghost)
        columns.append((weights_of(ghost), squared, products))
    weights, squared, products = (torch.cat(column) for column in zip(*columns, strict=True))
    if (count := int((weights > 0).sum())) < 2:
        raise ValueError(f"a noise scale needs at least 2 samples of weight > 0, received {count}")
    return NoiseScale(names, weights, squared, products, resultant)
