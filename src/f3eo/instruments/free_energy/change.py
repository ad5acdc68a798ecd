"""What an update does to accuracy and to complexity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.instruments.free_energy.measure import free_energy
from f3eo.instruments.free_energy.posterior import Posterior
from f3eo.instruments.free_energy.prior import Prior
from f3eo.instruments.free_energy.record import Energy
from f3eo.instruments.means import Estimate, weighted_mean
from f3eo.instruments.operator import Operator
from f3eo.instruments.passes import Data


@dataclass(frozen=True)
class Change:
    """The difference of two free energies of the same samples, after − before; in nats.

    Args:
        before: at θ.
        after: at θ'.

    Raises:
        ValueError: the records are not of the same samples.
    """

    before: Energy
    after: Energy

    def __post_init__(self) -> None:
        if not torch.equal(self.before.weights, self.after.weights):
            raise ValueError(
                f"a change needs records of the same samples in the same order, received "
                f"{len(self.before.weights)} and {len(self.after.weights)} samples, or other "
                f"weights"
            )

    @property
    def accuracy(self) -> Estimate:
        """Of the accuracy of all samples, with the standard error of paired differences."""
        gains = self.after.fits - self.before.fits
        mean, count = weighted_mean(gains, self.before.weights), self.before.samples
        return Estimate(mean.value * count, mean.error * count)

    @property
    def complexity(self) -> float:
        """Of KL(q‖p)."""
        return self.after.complexity.value - self.before.complexity.value

    @property
    def value(self) -> float:
        """Of the free energy: complexity − accuracy. Below 0 the update helps."""
        return self.complexity - self.accuracy.value

    def __str__(self) -> str:
        return (
            f"free energy {self.value:+.4g} nats = complexity {self.complexity:+.4g} − accuracy "
            f"{self.accuracy.value:+.4g}"
        )


def effect(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    prior: Prior,
    update: Sequence[Tensor],
    *,
    posterior: Posterior | None = None,
) -> Change:
    """What θ → θ + u does to accuracy and complexity; θ is put back bit for bit.

    Where noise level and precision are solved for, each θ has its own. Of a step that was made,
    take `Change(before, after)` of two records.

    Args:
        model, closure, data, prior, posterior: see `free_energy`.
        update: u, a tensor in the shape of every parameter that requires a gradient.

    Raises:
        ValueError: u does not have the shapes of the parameters; see also `free_energy`.
        TypeError: see `free_energy`.
    """
    model = model if isinstance(model, nn.Module) else list(model)
    operator = Operator(model, closure, data)
    parameters, batches = operator.parameters, operator.batches
    if [u.shape for u in update] != [p.shape for p in parameters]:
        raise ValueError(
            f"an update has a tensor in the shape of each of the {len(parameters)} trained "
            f"parameters, received {[tuple(u.shape) for u in update]}"
        )
    before = free_energy(model, closure, batches, prior, posterior=posterior)
    saved = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p, u in zip(parameters, update, strict=True):
                p.add_(u)
        after = free_energy(model, closure, batches, prior, posterior=posterior)
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, saved, strict=True):
                p.copy_(value)
    return Change(before, after)
