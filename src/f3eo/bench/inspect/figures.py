"""The figures of an inspection, as SVG: layers, spectrum, free energy, landscape, samples."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from f3eo.bench.inspect.inspection import Extreme, Inspection, Layer
from f3eo.bench.report.drawing import STYLE, svg
from f3eo.instruments import Landscape

LEAN: dict[Any, Any] = STYLE | {"svg.fonttype": "none", "font.size": 9}
GREY: dict[Any, Any] = LEAN | {"image.cmap": "Greys"}
COLOURS = ("#c2185b", "#1f6fb2")
"""Of the first and the second model."""
ROUNDING = 1e-9
"""Eigenvalues below this share of the largest are rounding, and not drawn."""
SHOWN = 18
"""The largest number of layers that have bars of their own; the others share one."""

COLUMNS: Sequence[tuple[str, Callable[[Layer], float], str]] = (
    ("Tr F", lambda layer: layer.trace.value, "log"),
    ("Tr(D F D)", lambda layer: layer.relative.value, "log"),
    ("log det(N F/δ + I), nats", lambda layer: layer.log_det, "linear"),
    ("effective dimension", lambda layer: layer.dimension, "linear"),
)


def layers_figure(models: Sequence[Inspection]) -> bytes:
    """A row of bars for every layer, a panel for every quantity, a colour for every model."""
    names = [layer.name for layer in models[0].layers][:SHOWN]
    height = 0.9 / len(models)
    with matplotlib.rc_context(LEAN):
        figure = Figure(figsize=(10.4, 0.9 + 0.34 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(COLUMNS), sharey=True)
        for axes, (title, value, scale) in zip(panels, COLUMNS, strict=True):
            for k, model in enumerate(models):
                values = [value(layer) for layer in model.layers[:SHOWN]]
                places = np.arange(len(values)) + (k - (len(models) - 1) / 2) * height
                axes.barh(places, values, height=0.88 * height, color=COLOURS[k])
            if scale == "log" and any(b.get_width() > 0 for b in axes.patches):
                _from_smallest(axes)
            axes.set_title(title)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(names)), [name or "(root)" for name in names])
        panels[0].invert_yaxis()
        return svg(figure)


def _from_smallest(axes: Axes) -> None:
    """A log axis that begins below the smallest bar."""
    widths = [b.get_width() for b in axes.patches if b.get_width() > 0]  # pyright: ignore
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(widths)) - 0.3), None)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_minor_formatter(NullFormatter())


def spectrum_figure(models: Sequence[Inspection]) -> bytes:
    """Eigenvalues of F̂ by their rank, and δ/N as a dashed line."""
    with matplotlib.rc_context(LEAN):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for model, colour in zip(models, COLOURS, strict=False):
            largest = float(model.eigenvalues.max())
            values = model.eigenvalues[model.eigenvalues > ROUNDING * largest].numpy()
            if len(values):
                axes.plot(np.arange(1, len(values) + 1), values, color=colour, linewidth=1.6)
        axes.set(xscale="log", yscale="log", xlabel="rank of the eigenvalue")
        for model, colour in zip(models, COLOURS, strict=False):
            prior = model.precision / model.samples
            axes.axhline(prior, color=colour, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate("δ/N", (1, prior), xytext=(2, 3), textcoords="offset points")
        axes.grid(axis="y")
        return svg(figure)


def energy_figure(models: Sequence[Inspection]) -> bytes:
    """Bars of −accuracy and of complexity, stacked to the free energy, in nats per sample."""
    posteriors = list(models[0].energies)
    height = 0.9 / len(models)
    with matplotlib.rc_context(LEAN):
        figure = Figure(
            figsize=(10.4, 0.9 + 0.42 * len(posteriors) * len(models)), layout="constrained"
        )
        axes = figure.subplots()
        for k, model in enumerate(models):
            places = np.arange(len(posteriors)) + (k - (len(models) - 1) / 2) * height
            energies = [model.energies[name] for name in posteriors]
            losses = np.array([-e.accuracy_per_sample.value for e in energies])
            complexities = np.array([e.complexity_per_sample.value for e in energies])
            style: dict[str, Any] = {"height": 0.86 * height, "color": COLOURS[k]}
            axes.barh(places, losses, **style)
            axes.barh(places, complexities, left=losses, alpha=0.4, **style)
            for y, total in zip(places, losses + complexities, strict=True):
                axes.annotate(
                    f"{total:.3g}",
                    (total, y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    color="#6b7280",
                )
        axes.set_yticks(range(len(posteriors)), posteriors)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.margins(x=0.08)
        axes.set_title("nats per sample: −accuracy (full) + complexity (pale)")
        return svg(figure)


def landscape_figure(found: Landscape, colour: str) -> bytes:
    """Contours of the loss; θ is the dot at the centre, the path a line into it."""
    steps, losses = found.steps.numpy(), found.losses.numpy().T  # rows are b, the y-axis
    with matplotlib.rc_context(LEAN):
        figure = Figure(figsize=(5.0, 4.2), layout="constrained")
        axes = figure.subplots()
        finite = losses[np.isfinite(losses)]
        low, high = float(finite.min()), float(np.quantile(finite, 0.95))
        norm: Normalize = Normalize(low, high)
        if low > 0 and high > 3 * low:
            norm = LogNorm(low, high)
        levels = (
            np.geomspace(low, high, 16) if isinstance(norm, LogNorm) else np.linspace(low, high, 16)
        )
        if high > low:
            drawn = axes.contourf(
                steps, steps, losses, levels, norm=norm, cmap="Greys", extend="both"
            )
            axes.contour(steps, steps, losses, levels, colors="white", linewidths=0.4)
            figure.colorbar(drawn, ax=axes, format="%.3g", label="loss, nats")
        if len(found.path):
            axes.plot(*found.path.T.numpy(), color=colour, linewidth=1.4, marker=".", markersize=4)
        axes.plot(0, 0, "o", color=colour, markersize=6)
        axes.set(
            xlim=(steps[0], steps[-1]),
            ylim=(steps[0], steps[-1]),
            aspect="equal",
            xlabel="along h⊥",
            ylabel="along g",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        return svg(figure)


def samples_figure(extremes: Sequence[Extreme]) -> bytes:
    """The samples as pictures, each with its label, the model's guess and ‖∇ℓ‖."""
    columns = 6
    rows = math.ceil(len(extremes) / columns)
    with matplotlib.rc_context(GREY):
        figure = Figure(figsize=(1.25 * columns, 1.75 * rows), layout="constrained")
        panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axes in panels:
            axes.axis("off")
        for axes, extreme in zip(panels, extremes, strict=False):
            if extreme.picture is not None:
                axes.imshow(extreme.picture.numpy(), vmin=0, vmax=1)
            axes.set_title(
                f"{extreme.label} → {extreme.guess}\n‖∇ℓ‖ {extreme.norm:.3g}",
                fontsize=8,
                loc="center",
            )
        return svg(figure)
