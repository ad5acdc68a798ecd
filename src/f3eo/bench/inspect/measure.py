"""All instruments on one model, as the page of an inspection shows them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from f3eo import ByRow
from f3eo.bench.inspect.inspection import Extreme, Inspection, Layer
from f3eo.closure.problem import Closure
from f3eo.instruments import (
    Landscape,
    Spectrum,
    alignment,
    landscape,
    memorisation,
    noise_scale,
    spectrum,
    structure_plane,
    trace,
)
from f3eo.instruments.free_energy import (
    Energy,
    GaussianPrior,
    IsotropicNoise,
    Laplace,
    Posterior,
    free_energy,
)
from f3eo.instruments.free_energy.prior import Prior
from f3eo.instruments.grouping import layers
from f3eo.instruments.means import weighted_mean

EXTREMES = 12
"""Samples that are shown."""
F = "fisher"
"""The curvature of all posteriors: the page speaks of one matrix."""
ISOTROPIC = "isotropic noise"
SPREAD = 1.2
"""Reach of the landscape over the farthest point of the path's second half."""


@dataclass(frozen=True)
class Subject:
    """A model that is inspected.

    Args:
        name: for the page.
        model: the module, in the mode in which it is measured.
        closure: its per-sample losses or likelihood, called with the arguments of a batch.
        predict: the arguments of a batch -> logits (B, C); default None, no accuracy.
        path: earlier parameters that require a gradient, in a row, (k, P); default none.
    """

    name: str
    model: nn.Module
    closure: Closure
    predict: Callable[..., Tensor] | None = None
    path: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


def inspected(
    subject: Subject,
    data: Sequence[Sequence[Any]],
    *,
    points: int = 21,
    pictures: Callable[[int], Tensor | None] = lambda index: None,
) -> Inspection:
    """Measure a model; it is left as it was.

    Args:
        subject: the model.
        data: batches, each the arguments of the closure, with labels last; N samples.
        points: of the landscape, odd; 0 draws none; default 21.
        pictures: index of a sample -> its picture, or None; default none.

    Raises:
        ValueError, TypeError: the closure, the model or the data do not fit.
    """
    model, closure = subject.model, subject.closure
    parts = model, closure, data
    plain, relative = trace(*parts), trace(*parts, metric=ByRow())
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in trained)
    precision = size / max(float(sum(p.detach().square().sum() for p in trained)), 1e-30)
    whole = spectrum(*parts, top=0)
    names = dict(model.named_parameters())
    by_layer = {}
    for layer, own in layers(plain.names).items():
        chosen = [names[str(plain.names[k])] for k in own]
        by_layer[layer] = chosen, spectrum(chosen, closure, data, top=0)
    traces, relatives = plain.by_layer(), relative.by_layer()
    listed = [
        Layer(
            name=str(layer),
            size=sum(p.numel() for p in chosen),
            trace=traces[layer],
            relative=relatives[layer],
            log_det=_log_det(found, precision),
            dimension=found.effective_dimension(precision, factor=found.samples).value,
        )
        for layer, (chosen, found) in by_layer.items()
    ]
    scores = memorisation(*parts)
    labels, guesses = _classes(subject, data)
    order = scores.norms.argsort(descending=True)[:EXTREMES].tolist()
    return Inspection(
        name=subject.name,
        samples=plain.samples,
        size=size,
        loss=weighted_mean(scores.losses, plain.weights),
        accuracy=None if guesses is None else float((guesses == labels).double().mean()),
        trace=plain.total(),
        relative=relative.total(),
        precision=precision,
        log_det=_log_det(whole, precision),
        dimension=whole.effective_dimension(precision, factor=whole.samples).value,
        layers=listed,
        eigenvalues=whole.values,
        noise=noise_scale(*parts),
        alignment=alignment(*parts),
        energies=_energies(subject, data),
        landscape=_landscape(subject, data, points, trained) if points else None,
        extremes=[
            Extreme(
                index=i,
                label=None if labels is None else int(labels[i]),
                guess=None if guesses is None else int(guesses[i]),
                loss=float(scores.losses[i]),
                norm=float(scores.norms[i]),
                picture=pictures(i),
            )
            for i in order
        ],
    )


def _log_det(found: Spectrum, precision: float) -> float:
    """log det(N F̂/δ + I)."""
    return found.log_det(1.0, factor=found.samples / precision).value


def _energies(subject: Subject, data: Sequence[Sequence[Any]]) -> dict[str, Energy]:
    """By posterior; Gaussian priors have the precision with the smallest free energy."""
    gaussian = GaussianPrior()
    plans: dict[str, tuple[Prior, Posterior]] = {
        "Laplace, full": (gaussian, Laplace("full", of=F)),
        "Laplace, Kronecker": (gaussian, Laplace("kronecker", of=F)),
        "Laplace, diagonal": (gaussian, Laplace("diagonal", of=F)),
        ISOTROPIC: (gaussian, IsotropicNoise(of=F)),
    }
    return {
        name: free_energy(subject.model, subject.closure, data, prior, posterior=posterior)
        for name, (prior, posterior) in plans.items()
    }


def _classes(
    subject: Subject, data: Sequence[Sequence[Any]]
) -> tuple[Tensor | None, Tensor | None]:
    """Labels and the model's guesses, (N,); None where there are none, or several a sample."""
    labels = torch.cat([batch[-1] for batch in data])
    if subject.predict is None or labels.ndim != 1 or labels.is_floating_point():
        return None, None
    with torch.no_grad():
        guesses = [subject.predict(*batch[:-1]).argmax(-1) for batch in data]
    return labels, torch.cat(guesses)


def _landscape(
    subject: Subject, data: Sequence[Sequence[Any]], points: int, trained: Sequence[Tensor]
) -> Landscape | None:
    """The landscape as far as the second half of the path, or 5 % of ‖θ‖; None without a plane."""
    parts = subject.model, subject.closure, data
    try:
        plane = structure_plane(*parts)
    except ValueError:  # fitted exactly: no gradient
        return None
    sizes = [p.numel() for p in trained]
    path = [
        [t.view_as(p) for t, p in zip(point.split(sizes), trained, strict=True)]
        for point in subject.path
    ]
    reach = 0.05 * float(sum([p.detach().square().sum() for p in trained])) ** 0.5
    if path:
        places = landscape(*parts, plane, reach=reach, points=1, path=path).path
        reach = max(reach, SPREAD * float(places[len(places) // 2 :].abs().max()))
    return landscape(*parts, plane, reach=reach, points=points, path=path)
