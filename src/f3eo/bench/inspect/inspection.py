"""What the page of an inspection shows of one model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from f3eo.instruments import Alignment, Estimate, Landscape, NoiseScale
from f3eo.instruments.free_energy import Energy


@dataclass(frozen=True)
class Layer:
    """A module's own parameters by themselves.

    Args:
        name: of the module, "" at the root.
        size: number of its parameters that require a gradient.
        trace: Tr F̂, and `relative`, Tr(D F̂ D) by rows.
        log_det: log det(N F̂/δ + I), in nats.
        dimension: Σ Nλ/(Nλ + δ), at most `size`.
    """

    name: str
    size: int
    trace: Estimate
    relative: Estimate
    log_det: float
    dimension: float


@dataclass(frozen=True)
class Extreme:
    """One of the samples with the largest gradient norms.

    Args:
        index: its place in the data.
        label: its label.
        guess: the class that the model gives it.
        loss: ℓ_i in nats.
        norm: ‖∇ℓ_i‖.
        picture: (H, W) or (H, W, 3) in [0, 1]; None where samples are no pictures.
    """

    index: int
    label: int | None
    guess: int | None
    loss: float
    norm: float
    picture: Tensor | None


@dataclass(frozen=True)
class Inspection:
    """A model, measured on N training samples.

    Args:
        name: of the model.
        samples: N.
        size: P, number of its parameters that require a gradient.
        loss: L in nats.
        accuracy: share of the samples that are classified as labelled; None without labels.
        trace: Tr F̂; `relative`: Tr(D F̂ D) by rows.
        precision: δ = P/‖θ‖², that of a prior with the parameters' own variance.
        log_det: log det(N F̂/δ + I), and `dimension`, Σ Nλ/(Nλ + δ), over all parameters.
        layers: the same layer by layer.
        eigenvalues: of F̂, the largest first, zeros left out.
        noise: the gradient noise scale.
        alignment: of g and h.
        energies: the free energy by posterior.
        landscape: the loss in the plane of g and of the structure direction; None without one.
        extremes: the samples with the largest gradient norms, the largest first.
    """

    name: str
    samples: int
    size: int
    loss: Estimate
    accuracy: float | None
    trace: Estimate
    relative: Estimate
    precision: float
    log_det: float
    dimension: float
    layers: Sequence[Layer]
    eigenvalues: Tensor
    noise: NoiseScale
    alignment: Alignment
    energies: dict[str, Energy]
    landscape: Landscape | None
    extremes: Sequence[Extreme]
