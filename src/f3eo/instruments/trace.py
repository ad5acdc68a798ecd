"""The trace of the Fisher information over data, by parameter, layer and group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher import Metric
from f3eo.instruments.grouping import Name, grouped, layers
from f3eo.instruments.means import Estimate, weighted_mean
from f3eo.instruments.norms import sample_norms
from f3eo.instruments.passes import Data


@dataclass(frozen=True)
class Trace:
    """Tr(D F D) over N samples, in nats² per squared unit of θ/D.

    Args:
        names: of the K parameters; `id`s where they have no names.
        squared: ‖D ∇ℓ_i‖² in every parameter, E over labels where these are exact; (N, K), float64.
        weights: w_i of the samples, (N,), float64.
    """

    names: list[Name]
    squared: Tensor
    weights: Tensor

    @property
    def samples(self) -> int:
        """N."""
        return len(self.squared)

    @property
    def value(self) -> float:
        """Tr(D F D) = Σ_i ω_i ‖D ∇ℓ_i‖²."""
        return self.total().value

    @property
    def error(self) -> float:
        """Its standard error over samples; NaN for one sample."""
        return self.total().error

    def total(self) -> Estimate:
        """Over all parameters."""
        return self._over(range(len(self.names)))

    def by_parameter(self) -> dict[Name, Estimate]:
        """The share of every parameter; they add up to `value`."""
        return {name: self._over([k]) for k, name in enumerate(self.names)}

    def by_layer(self) -> dict[Name, Estimate]:
        """The share of every module's own parameters, by the module's name, "" at the root."""
        return {layer: self._over(own) for layer, own in layers(self.names).items()}

    def by_group(self, groups: Mapping[str, Iterable[Name]]) -> dict[str, Estimate]:
        """The share of groups of parameters.

        Args:
            groups: names of parameters by the name of their group; groups may overlap.

        Raises:
            ValueError: a name that no measured parameter has.
        """
        return {group: self._over(own) for group, own in grouped(self.names, groups)}

    def _over(self, positions: Sequence[int]) -> Estimate:
        return weighted_mean(self.squared[:, list(positions)].sum(1), self.weights)


def trace(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    metric: Metric | None = None,
    labels: str = "data",
    generator: Generator | None = None,
) -> Trace:
    """Tr(D F D) = Σ_i ω_i ‖D ∇ℓ_i‖² with its standard error, exact per sample.

    Measured in the mode that the model is in: call `model.eval()` first if dropout is not meant.
    The model is left as it was. (`f3eo.fisher.estimand`: quantity, metric, mean)

    Args:
        model: a module, or its parameters; those that require no gradient do not count.
        closure: returns per-sample losses, `Weighted` or a likelihood.
        data: batches, each a tuple of the closure's arguments, such as a DataLoader.
        metric: D; default `Euclidean()`, D = 1, which gives Tr F.
        labels: "data" (default) for the empirical Fisher F̂; of the true Fisher F, "drawn" is an
            estimate without bias from one label a sample, and "exact" the mean over all labels, at
            the cost of one backward pass a class (or output) and position.
        generator: source of drawn labels, which moves on; default torch's global one, which is
            put back, so that the next call draws the same.

    Returns:
        The trace. It keeps one number a sample and parameter tensor: 8·N·K bytes.

    Raises:
        ValueError: no trained parameter, no sample, unknown labels, or samples that mix.
        TypeError: labels of the model, and a closure that returns losses.
    """
    found = sample_norms(model, closure, data, metric=metric, labels=labels, generator=generator)
    return Trace(found.names, found.squared, found.weights)
