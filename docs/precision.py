"""Measure what docs/precision.md says: errors of g, trace and h by precision, and training.

    python docs/precision.py             # two minutes; writes the tables and precision.png
    python docs/precision.py --errors    # prints the errors alone

The truth is float64 by double backward, which the tests hold against a loop over single samples.
"""

import copy
import logging
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import AdamW

from f3eo import F3EO, ByRow, DoubleBackward, FiniteDifference, LossScale, PerSample
from f3eo.bench.models.gpt import GPT
from f3eo.bench.models.mlp import mlp
from f3eo.bench.report.drawing import STYLE
from f3eo.bench.tasks.digits import load
from f3eo.closure.problem import Problem
from f3eo.extend import Engine, Gradients
from f3eo.fisher.metric import length

PAGE = Path(__file__).with_suffix(".md")
STEPS, SEEDS, LAST = 200, 3, 20
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Precision:
    """A type of the parameters, and one of autocast."""

    name: str
    dtype: torch.dtype
    autocast: torch.dtype | None = None


PRECISIONS = (
    Precision("float32", torch.float32),
    Precision("bfloat16 autocast", torch.float32, torch.bfloat16),
    Precision("float16 autocast", torch.float32, torch.float16),
    Precision("bfloat16", torch.bfloat16),
    Precision("float16", torch.float16),
)
EXACT = Precision("float64", torch.float64)


def convolutional() -> nn.Module:
    """Two convolutions with group normalisation, 3×12×12 to 10."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(4, 32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def models() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Every model with its batch, after 40 steps of Adam on it."""
    torch.manual_seed(0)
    text = torch.randint(65, (16, 13))
    labels = torch.randint(10, (32,))
    made = {
        "MLP": (mlp(64, 64, 64, 10), torch.randn(32, 64), labels),
        "CNN": (convolutional(), torch.randn(32, 3, 12, 12), labels),
        "GPT": (GPT(12, width=32, depth=2), text[:, :-1], text[:, 1:]),
    }
    for model, x, y in made.values():
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(40):
            adam.zero_grad()
            losses(model, PRECISIONS[0], x, y).mean().backward()
            adam.step()
    return made


def losses(model: nn.Module, precision: Precision, x: Tensor, y: Tensor) -> Tensor:
    """ℓ_i, (B,) or (B, T), in float32 or wider."""
    amp = precision.autocast
    with nullcontext() if amp is None else torch.autocast("cpu", amp):
        z = model(x.to(precision.dtype) if x.is_floating_point() else x)
    z = z.float() if z.dtype in HALF else z
    return F.cross_entropy(z.movedim(-1, 1), y, reduction="none")


def measured(
    engine: Engine, precision: Precision, model: nn.Module, x: Tensor, y: Tensor, size: float = 1.0
) -> Gradients:
    """What F3EO's default estimator gives with this engine, of `size` times the losses."""
    model = copy.deepcopy(model).to(precision.dtype)
    parameters, scale = list(model.parameters()), LossScale()
    problem = Problem(
        lambda x, y: size * losses(model, precision, x, y),
        (x, y),
        parameters,
        [True] * len(parameters),
        model,
        scale=scale if size > 0 else None,
        on_output=lambda output: scale.see(output.losses),
    )
    estimator = PerSample(engine, metric=ByRow(), hold_residuals=True)
    return estimator.gradients(problem)


def row(tensors: list[Tensor] | list[Tensor | None]) -> Tensor:
    """All tensors in a row, in float64."""
    return torch.cat([t.detach().double().flatten() for t in tensors if t is not None])


def error(found: list, exact: list) -> float:
    """‖a − b‖/‖b‖."""
    return float((row(found) - row(exact)).norm() / row(exact).norm())


def of_torch(precision: Precision, model: nn.Module, x: Tensor, y: Tensor, exact: list) -> float:
    """The error of ∇L by `losses.mean().backward()`."""
    model = copy.deepcopy(model).to(precision.dtype)
    loss = losses(model, precision, x, y).mean()
    return error(list(torch.autograd.grad(loss, list(model.parameters()))), exact)


COLUMNS = ["model", "precision", "∇L by torch", "∇L", "trace"]
COLUMNS += ["h, double backward", "h, central", "expected"]


def errors() -> list[str]:
    """The rows of the first table."""
    rows = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, case in models().items():
        exact = measured(DoubleBackward(), EXACT, *case)
        for precision in PRECISIONS:
            double = measured(DoubleBackward(), precision, *case)
            cells = [
                of_torch(precision, *case, exact.gradient),
                error(double.gradient, exact.gradient),
                abs(float(double.trace) / float(exact.trace) - 1),
                error(double.structure, exact.structure),
            ]
            said = [f"{cell:.0e}".replace("e-0", "e-") for cell in cells]
            central = measured(FiniteDifference(central=True), precision, *case)
            if precision.dtype in HALF:
                said += ["double backward", ""]
            else:
                cells = error(central.structure, exact.structure), float(central.error)
                said += [f"{cell:.0e}".replace("e-0", "e-") for cell in cells]
            rows.append(f"| {name} | {precision.name} | {' | '.join(said)} |")
    return rows


def trained(precision: Precision, seed: int) -> tuple[float, float, int]:
    """The loss over the last steps on digits, the accuracy on other scans, and skipped steps."""
    data = load()
    torch.manual_seed(seed)
    model = mlp(64, 128, 128, 10).to(precision.dtype)
    draw = torch.Generator().manual_seed(seed)
    eps = 1e-4 if precision.dtype == torch.float16 else 1e-8  # which is 0 in float16, and 0/0 NaN
    optimizer = F3EO(model, AdamW, lr=3e-3, eps=eps, generator=draw)
    seen = []
    for _ in range(STEPS):
        chosen = torch.randint(len(data.train.y), (100,), generator=draw)
        batch = data.train.x[chosen], data.train.y[chosen]
        loss = optimizer.step(lambda x, y: losses(model, precision, x, y), *batch)
        seen.append(float(loss))
    with torch.no_grad():
        hit = model(data.test.x.to(precision.dtype)).argmax(1) == data.test.y
    return sum(seen[-LAST:]) / LAST, float(hit.double().mean()), optimizer.skipped


def training() -> list[str]:
    """The rows of the second table."""
    rows = [f"| precision | loss, {SEEDS} seeds | accuracy | skipped |", "|---|---|---|---|"]
    for precision in PRECISIONS:
        runs = [trained(precision, seed) for seed in range(SEEDS)]
        loss = ", ".join(f"{run[0]:.4f}" for run in runs)
        hit = ", ".join(f"{100 * run[1]:.1f}" for run in runs)
        rows.append(f"| {precision.name} | {loss} | {hit} | {sum(run[2] for run in runs)} |")
    return rows


WIDTHS = [2.0**-k for k in range(11, -2, -1)]
"""x, the relative change of the gradients over a difference."""


def curve(precision: Precision, case: tuple, *, central: bool) -> list[float]:
    """The error of h by differences of these widths."""
    exact = measured(DoubleBackward(), EXACT, *case)
    model, found = case[0], []
    parameters = [p.detach() for p in model.parameters()]
    theta = length(parameters, ByRow().of(parameters))
    assert exact.norms is not None
    contributions = exact.norms.contributions()
    norm = (contributions * len(contributions)).sqrt().mean()  # of D ∇ℓ_i
    for x in WIDTHS:
        step = float(x * exact.loss / (norm * theta))
        each = measured(FiniteDifference(central=central, step=step), precision, *case)
        found.append(error(each.structure, exact.structure))
    return found


def rounding_of(precision: Precision) -> float:
    """The rounding unit that counts for a mean: an eighth of that of 16 bits."""
    if precision.autocast is None:
        return torch.finfo(precision.dtype).eps
    return torch.finfo(precision.autocast).eps / 8


def draw(path: Path) -> None:
    """The picture: error of h against the width, one panel a model."""
    colours = {"float32": "#6b7280", "bfloat16 autocast": "#b45309", "float16 autocast": "#1d4ed8"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (name, case) in zip(panels, models().items(), strict=True):
            level = float(measured(DoubleBackward(), EXACT, *case).loss)
            for precision in PRECISIONS[:3]:
                v, colour = rounding_of(precision) / min(1.0, level), colours[precision.name]
                for central in (False, True):
                    points = curve(precision, case, central=central)
                    filled = colour if central else "white"
                    label = f"{precision.name}, {'central' if central else 'forward'}"
                    axes.plot(WIDTHS, points, "o", ms=4, color=colour, mfc=filled, label=label)
                    line = [(x * x if central else x) + v / x for x in WIDTHS]
                    axes.plot(WIDTHS, line, lw=0.8, color=colour, ls="-" if central else ":")
            axes.set(xscale="log", yscale="log", ylim=(1e-5, 3), title=f"{name}, loss {level:.2g}")
            axes.set_xlabel("width x")
        panels[0].set_ylabel("relative error of h")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False
        )
        figure.savefig(path, dpi=150)


def write(tables: dict[str, list[str]]) -> None:
    """Put the tables between their marks on the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, rows in tables.items():
        mark = f"<!-- {name} -->"
        body = "\n".join(rows)
        text = re.sub(
            rf"{mark}.*?{mark}", lambda _, b=body, m=mark: f"{m}\n{b}\n{m}", text, flags=re.S
        )
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, write and draw."""
    logging.disable(logging.CRITICAL)
    found = {"errors": errors()}
    if "--errors" in sys.argv:
        print("\n".join(found["errors"]))
        return
    found["training"] = training()
    write(found)
    draw(PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
