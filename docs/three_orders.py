"""Run optimizers of three orders from one start, on a loss with a sharp and a flat valley.

    python docs/three_orders.py [FOLDER]   # a few seconds; writes three-orders.png

Every sample has the same landscape W, shifted by its own offset: ℓ_i(θ) = W(θ − δ_i). In a sharp
valley the samples disagree, and Tr F = (1/B) Σ_i ‖∇ℓ_i‖² is large. `check_paths` and `check_costs`
assert what docs/three-orders.md says.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from pathlib import Path

import matplotlib
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.flop_counter import FlopCounterMode

from f3eo import F3EO, Categorical, DoubleBackward, PerSample, Ratio
from f3eo.bench.methods import colour
from f3eo.bench.report.drawing import STYLE
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG, SecondOrder

START = (-0.4, 1.0)
LEARNING_RATE = 0.1
ANGLES = torch.arange(8, dtype=torch.float64) * pi / 4
OFFSETS = 0.25 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)  # δ_i: eight samples on a circle


def landscape(places: Tensor) -> Tensor:
    """W at places (…, 2): a bowl with a narrow and a wide hollow."""

    def hollow(x: float, depth: float, width: float) -> Tensor:
        centre = torch.tensor([x, 0.0], dtype=torch.float64)
        return depth * torch.exp(-(places - centre).square().sum(-1) / (2 * width**2))

    return 0.06 * places.square().sum(-1) - hollow(-1.0, 0.949, 0.45) - hollow(1.3, 1.0, 1.1)


class Place(nn.Module):
    """θ as a module; it maps offsets (B, 2) to losses ℓ_i(θ), (B,)."""

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, offsets: Tensor) -> Tensor:
        return landscape(self.theta - offsets)


def loss_and_trace(places: Tensor) -> tuple[Tensor, Tensor]:
    """L and Tr F at places (N, 2)."""
    theta = (places[:, None] - OFFSETS).requires_grad_()
    losses = landscape(theta)
    (gradients,) = torch.autograd.grad(losses.sum(), theta)
    return losses.detach().mean(1), gradients.square().sum(-1).mean(1)


@dataclass(frozen=True)
class Descent:
    """The places (N + 1, 2) of an optimizer after 0 … N steps, and L and Tr F at the last."""

    places: Tensor
    loss: float
    trace: float

    @property
    def flat(self) -> bool:
        """Whether it ends in the flat valley."""
        return bool(self.places[-1, 0] > 0)


def descend(
    make: Callable[[nn.Module], Optimizer],
    start: tuple[float, float] = START,
    *,
    slope: float = 1e-3,
    most: int = 1000,
) -> Descent:
    """Step from `start` until ‖∇L‖ < slope, at most `most` times."""
    model = Place(start)
    optimizer = make(model)
    places = [model.theta.detach().clone()]
    for _ in range(most):
        if isinstance(optimizer, (SGD, Adam)):
            optimizer.zero_grad()
            model(OFFSETS).mean().backward()
            optimizer.step()
        else:
            optimizer.step(model, OFFSETS)
        places.append(model.theta.detach().clone())
        (gradient,) = torch.autograd.grad(model(OFFSETS).mean(), model.theta)
        if gradient.norm() < slope:
            break
    loss, trace = loss_and_trace(places[-1][None])
    return Descent(torch.stack(places), float(loss), float(trace))


def first(model: nn.Module, lr: float = LEARNING_RATE) -> Optimizer:
    """The first order: SGD."""
    return SGD(model.parameters(), lr=lr)


def second(model: nn.Module) -> Optimizer:
    """The second order: Newton's method in a trust region."""
    return NewtonCG(model, radius=0.3)


def third(model: nn.Module, lr: float = LEARNING_RATE) -> Optimizer:
    """The third order: F3EO with h = ½∇Tr F of the whole batch, at every step."""
    return F3EO(
        model,
        SGD,
        lr=lr,
        estimator=PerSample(power=2),
        strength=Ratio(0.3),
        fraction=1,
        every=1,
    )


def check_paths(descents: dict[str, Descent]) -> None:
    """Assert what docs/three-orders.md says of this landscape."""
    # Two valleys, equally deep; the trace tells them apart.
    assert all(round(descent.loss, 3) == -0.883 for descent in descents.values())
    assert [round(descent.trace, 2) for descent in descents.values()] == [0.92, 0.92, 0.05]
    # Which valley each reaches, and in how many steps.
    assert [descent.flat for descent in descents.values()] == [False, False, True]
    assert [len(descent.places) - 1 for descent in descents.values()] == [41, 9, 105]
    # The structure term bends the way down: it does not climb out of a valley.
    assert not descend(third, (-0.7, 0.4)).flat
    # Plain descent reaches the flat valley too, with steps too long for the sharp one.
    assert descend(lambda model: first(model, 1.2)).flat
    # So does Adam.
    assert descend(lambda model: Adam(model.parameters(), lr=0.05)).flat
    # From starts all over the picture, with longer steps to save time.
    starts = [(x / 2, y / 2) for x in range(-4, 5) for y in range(-3, 4)]
    reached = [
        sum(descend(make, start, slope=0.02, most=60).flat for start in starts)
        for make in (lambda model: first(model, 0.4), lambda model: third(model, 0.4))
    ]
    assert (len(starts), *reached) == (63, 37, 41)


def check_costs() -> None:
    """Assert the table of costs, counted in matrix products on an MLP of 25 square layers."""
    torch.manual_seed(0)
    layers = [layer for _ in range(24) for layer in (nn.Linear(16, 16), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(16, 16))
    x, y = torch.randn(32, 16), torch.randint(16, (32,))

    def closure(x: Tensor, y: Tensor) -> Categorical:
        return Categorical(model(x), y)

    def count_flops(action: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter:
            action()
        return float(counter.get_total_flops())

    parameters = list(model.parameters())
    unit = count_flops(lambda: torch.autograd.grad(closure(x, y).losses().mean(), parameters))

    def cost(kind: type[SecondOrder], products: int) -> float:
        """Plain gradients of a step whose conjugate gradients take this many products."""
        optimizer = kind(model, max_iterations=products, tolerance=1e-9)
        return count_flops(lambda: optimizer.step(closure, x, y)) / unit

    for k in (1, 2):
        assert abs(cost(NewtonCG, k) - (4 / 3 + 2 * (k + 1))) < 0.2
        assert abs(cost(GaussNewton, k) - (2 + 4 / 3 * (k + 1))) < 0.2
        assert abs(cost(LayerwiseGaussNewton, k) / (2 + 25 / 3 * (k + 1)) - 1) < 0.1
    for estimator, price in ((None, 2), (PerSample(DoubleBackward(), power=2), 7 / 3)):
        f3eo = F3EO(model, SGD, lr=0.01, estimator=estimator, fraction=1, every=1)
        f3eo.step(closure, x, y)  # the first batch is checked, at a price
        assert abs(count_flops(lambda f=f3eo: f.step(closure, x, y)) / unit - price) < 0.1


def draw(descents: dict[str, Descent], file: Path) -> None:
    """Draw levels of L over a shade of Tr F, and the paths."""
    x, y = torch.linspace(-2.3, 2.9, 261), torch.linspace(-1.4, 1.6, 161)
    places = torch.cartesian_prod(x, y).double()
    loss, trace = (t.view(261, 161).T.numpy() for t in loss_and_trace(places))
    shade = LinearSegmentedColormap.from_list("trace", ["#ffffff", "#fdf1dc", "#f6c77d", "#e69138"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.75), dpi=150, layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(
            trace,
            extent=(-2.3, 2.9, -1.4, 1.6),
            origin="lower",
            cmap=shade,
            interpolation="bilinear",
        )
        axes.contour(
            x, y, loss, levels=18, colors="#6b7280", linewidths=0.5, alpha=0.7, linestyles="-"
        )
        halo = [withStroke(linewidth=3, foreground="white", alpha=0.85)]
        for (name, descent), (ink, style) in zip(descents.items(), LOOKS, strict=True):
            xs, ys = descent.places.T.numpy()
            axes.plot(
                xs, ys, style, color=ink, lw=2.2, ms=5, mec="white", mew=0.8, label=name, zorder=3
            )
            axes.plot(xs[-1], ys[-1], "o", color=ink, ms=9, mec="white", mew=1.2, zorder=4)
        axes.plot(*START, "o", color="#111827", ms=8, mec="white", mew=1.2, zorder=5)
        note = {"color": "#111827", "fontsize": 10, "path_effects": halo}
        axes.annotate("start", START, (8, 6), textcoords="offset points", fontweight="bold", **note)
        for descent, words, at in (
            (descents[FIRST], "sharp valley", (-0.89, -1.0)),
            (descents[THIRD], "flat valley", (1.12, -1.0)),
        ):
            text = f"{words}\nL = {descent.loss:.2f},  Tr F = {descent.trace:.2f}".replace("-", "−")
            axes.text(*at, text, ha="center", va="center", linespacing=1.5, **note)
        figure.colorbar(
            image, ax=axes, label="Tr F", ticks=[0.5, 1, 1.5], shrink=0.72, pad=0.015
        ).outline.set_visible(False)
        axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
        axes.set(xlabel="θ₁", ylabel="θ₂", xlim=(-2.3, 2.9), ylim=(-1.4, 1.6))
        axes.set_xticks([]), axes.set_yticks([])
        axes.spines[:].set_visible(False)
        figure.savefig(file)


FIRST, SECOND, THIRD = "first order: SGD", "second order: Newton-CG", "third order: F3EO"
LOOKS = [(colour("sgd"), "-"), ("#0072b2", "o-"), (colour("f3eo"), "-")]


def main(folder: Path) -> None:
    """Assert the page, and write its picture."""
    descents = {FIRST: descend(first), SECOND: descend(second), THIRD: descend(third)}
    check_paths(descents)
    check_costs()
    draw(descents, folder / "three-orders.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
