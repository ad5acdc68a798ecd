"""Traces and free energy along a stream, on a probe of the training samples so far."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor, nn

from f3eo import ByRow
from f3eo.bench.continual.run.judge import PerSample
from f3eo.bench.tasks import Samples
from f3eo.closure.weighted import Weighted
from f3eo.instruments import trace
from f3eo.instruments.free_energy import GaussianPrior, Laplace, free_energy

PROBE = 500
"""Samples of the probe, about."""
CHUNK = 100
"""Samples whose gradients are measured at once; bounds memory."""
NAMES = ("trace", "relative_trace", "accuracy", "complexity", "free_energy")


class Probe:
    """Equally many training samples of every stage so far, PROBE in all.

    Args:
        seed: draws the samples.
        size: n, samples of the probe; default PROBE. After i stages it has the first ⌊n/i⌋ kept
            samples of each, at least one.
    """

    def __init__(self, seed: int, size: int = PROBE) -> None:
        self.size = size
        self._draw = torch.Generator().manual_seed(seed)
        self.trained = 0
        self._kept: list[Samples] = []

    def add(self, train: Samples) -> None:
        """Keep a random part of a stage's training samples, and count all of them in `trained`."""
        chosen = torch.randperm(len(train.y), generator=self._draw)[: self.size]
        self._kept.append(train.at(chosen))
        self.trained += len(train.y)

    @property
    def samples(self) -> Samples:
        """The probe."""
        share = max(1, self.size // len(self._kept))
        parts = [(kept.x[:share], kept.y[:share]) for kept in self._kept]
        return Samples(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def structure(model: nn.Module, loss: PerSample, probe: Probe) -> dict[str, float | None]:
    """Tr F, Tr(D F D) by rows, and the free energy of a diagonal Laplace posterior.

    F is the empirical Fisher of the probe. The posterior is N(θ, (N F_diag + α I)⁻¹) around the
    parameters and the prior N(0, α⁻¹ I) with MacKay's α; each sample of the probe counts N/n times,
    so that complexity is that of all N samples trained so far. Why this posterior: its diagonal is
    exact at the cost of one backward pass on any model and per-sample loss; it has an α for every
    model that is not at zero and does not fit exactly; what the data do not determine costs
    nothing, where one noise level for all parameters is as small as the most sensitive needs; and
    it is the posterior that elastic weight consolidation holds on to.

        accuracy     −L − γ/(2N), γ = Σ_p N F_pp/(N F_pp + α)
        complexity   (1/2N) (α ‖θ‖² − γ + Σ_p log(1 + N F_pp/α))
        free_energy  complexity − accuracy

    The three are nats a sample; the losses must be negative log-probabilities.

    Args:
        model: measured in the mode that it is in; left as it was.
        loss: per-sample loss of the stream.
        probe: training samples, and how many they stand for.

    Returns:
        By NAMES; None where a number is not finite or does not exist.
    """
    samples = probe.samples
    data = list(zip(samples.x.split(CHUNK), samples.y.split(CHUNK), strict=True))
    weight = probe.trained / len(samples.y)

    def losses(x: Tensor, y: Tensor) -> Tensor:
        return loss(model(x), y)

    def weighted(x: Tensor, y: Tensor) -> Weighted:
        own = losses(x, y)
        return Weighted(own, torch.full_like(own, weight))

    try:
        traces = [trace(model, losses, data, metric=metric).value for metric in (None, ByRow())]
    except (ValueError, FloatingPointError):
        traces = [None, None]
    try:
        energy = free_energy(
            model, weighted, data, GaussianPrior(), posterior=Laplace("diagonal", of="fisher")
        )
        energies = (
            energy.accuracy_per_sample.value,
            energy.complexity_per_sample.value,
            energy.per_sample,
        )
    except (ValueError, FloatingPointError):  # no α: the probe is fitted exactly
        energies = (None, None, None)
    return dict(zip(NAMES, map(_finite, (*traces, *energies)), strict=True))


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def columns(points: Sequence[dict[str, float | None]]) -> dict[str, list[float | None]]:
    """The numbers by name, each a list over stages."""
    return {name: [point[name] for point in points] for name in NAMES}
