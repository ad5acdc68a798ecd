"""The page of an inspection: one or two models side by side, self-contained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from f3eo.bench.execute import disk
from f3eo.bench.inspect import figures
from f3eo.bench.inspect.inspection import Inspection
from f3eo.bench.inspect.measure import ISOTROPIC, Subject, inspected
from f3eo.bench.report import page
from f3eo.bench.report.drawing import data_uri

MODELS = len(figures.COLOURS)
"""The largest number of models on a page."""


def inspect(
    subjects: Sequence[Subject],
    data: Sequence[Sequence[Any]],
    file: Path,
    *,
    title: str = "Inspection",
    description: str = "",
    points: int = 21,
    pictures: Callable[[int], Tensor | None] = lambda index: None,
) -> list[Inspection]:
    """Measure one or two trained models with all instruments, and write the page.

    Args:
        subjects: the models, with the same layers; they are left as they were.
        data: training batches, each the arguments of the closures, with labels last. Some hundreds
            of samples are enough.
        file: receives the page, atomically.
        title, description: of the page.
        points: of the landscape in each direction, odd; 0 draws none; default 21.
        pictures: index of a sample -> (H, W) or (H, W, 3) in [0, 1], or None; default none.

    Returns:
        What was measured.

    Raises:
        ValueError, TypeError: too many models, other layers, or see `inspected`.
    """
    if not 1 <= len(subjects) <= MODELS:
        raise ValueError(f"a page shows 1 or {MODELS} models, received {len(subjects)}")
    first, *others = ([name for name, _ in s.model.named_parameters()] for s in subjects)
    if any(names != first for names in others):
        raise ValueError("two models on a page have the same layers, received others: inspect each")
    models = [inspected(subject, data, points=points, pictures=pictures) for subject in subjects]
    disk.write(file, render(models, title, description))
    return models


def render(models: Sequence[Inspection], title: str, description: str) -> str:
    """The page as HTML."""
    drawn = [(k, m.name, found) for k, m in enumerate(models) if (found := m.landscape)]
    return page.render(
        "inspection.html.j2",
        title=title,
        description=description,
        models=models,
        colours=figures.COLOURS,
        isotropic=ISOTROPIC,
        numbers=_numbers(models),
        layers=data_uri(figures.layers_figure(models)),
        hidden=max(0, len(models[0].layers) - figures.SHOWN),
        spectrum=data_uri(figures.spectrum_figure(models)),
        energy=data_uri(figures.energy_figure(models)),
        landscapes=[
            {
                "place": k,
                "name": name,
                "image": data_uri(figures.landscape_figure(found, figures.COLOURS[k])),
            }
            for k, name, found in drawn
        ],
        kept=any(len(found.path) for *_, found in drawn),
        extremes=[
            {
                "name": m.name,
                "extremes": m.extremes,
                "image": data_uri(figures.samples_figure(m.extremes))
                if m.extremes and m.extremes[0].picture is not None
                else None,
            }
            for m in models
        ],
    )


def _numbers(models: Sequence[Inspection]) -> list[dict[str, Any]]:
    """The lines of the table: a name, and an estimate or a number for every model."""
    lines: dict[str, Callable[[Inspection], Any]] = {
        "Loss, nats": lambda m: m.loss,
        "Tr F": lambda m: m.trace,
        "Tr(D F D)": lambda m: m.relative,
        "√Tr(D F D)/L": lambda m: m.relative.value**0.5 / m.loss.value,
        "log det(N F/δ + I), nats": lambda m: m.log_det,
        "Effective dimension": lambda m: m.dimension,
        "Largest eigenvalue of F": lambda m: float(m.eigenvalues[0]),
        "Gradient noise scale, samples": lambda m: m.noise.scale,
        "Curvature along g": lambda m: m.alignment.curvature,
        "Cosine of g and h": lambda m: m.alignment.cosine,
        "Share of h off g": lambda m: m.alignment.off,
        "Noise on the parameters that the data bear, σ*": lambda m: m.energies[ISOTROPIC].noise,
    }
    return [{"name": name, "values": [f(m) for m in models]} for name, f in lines.items()]
