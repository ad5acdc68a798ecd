"""Train with and without the structure term, and draw what it does to the free energy's two terms.

    python docs/both_terms.py [FOLDER]   # about a minute; writes both-terms.png

Both runs see the same batches of 500 samples of MNIST-1D. Every tenth step both terms are measured
on all of these, for the best isotropic noise. There, F3EO's update is tried by halves: along the
loss gradient alone, and along the structure term alone. `check` asserts what docs/free-energy.md
says.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from f3eo import F3EO, Sensitivity
from f3eo.bench.methods import colour
from f3eo.bench.report.drawing import INK, STYLE
from f3eo.bench.run.train import load
from f3eo.bench.tasks import TASKS
from f3eo.closure.problem import Closure
from f3eo.instruments.free_energy import (
    Change,
    Energy,
    GaussianPrior,
    IsotropicNoise,
    effect,
    free_energy,
)
from f3eo.optimizer.step_record import StepRecord
from f3eo.tensors import filled, plus, scaled

TASK, SAMPLES, BATCH, STEPS, EVERY = "mnist1d-mlp", 500, 100, 600, 10
LEARNING_RATE = 0.1
POSTERIOR = IsotropicNoise(of="fisher")


@dataclass
class Course:
    """A run, at every EVERY-th step.

    Args:
        energies: both terms before the step.
        loss, structure: what the two halves of its update do to them.
    """

    energies: list[Energy] = field(default_factory=list)
    loss: list[Change] = field(default_factory=list)
    structure: list[Change] = field(default_factory=list)


class Halves:
    """Observes F3EO over plain SGD: −η g and −η λ d of its last update."""

    def __call__(self, record: StepRecord) -> None:
        """Keep both halves."""
        assert record.structure is not None and record.strength is not None
        g = filled(record.gradient, record.parameters)
        d = plus(record.structure, g, -record.products.gh / record.products.gg)
        self.loss = scaled(g, -LEARNING_RATE)
        self.structure = scaled(d, -LEARNING_RATE * record.strength)


def run(*, structured: bool) -> Course:
    """Train from one start, by F3EO or by plain SGD."""
    model, train = TASKS[TASK].seeded_model(0), load(TASK).train
    x, y = train.x[:SAMPLES], train.y[:SAMPLES]
    closure = losses_of(model)
    given = model, closure, [(x, y)], GaussianPrior()
    often = {"strength": Sensitivity(rest=0), "fraction": 1, "every": 1}  # h of every step is shown
    optimizer = F3EO(model, SGD, lr=LEARNING_RATE, **often)
    plain = SGD(model.parameters(), lr=LEARNING_RATE)
    halves, course = Halves(), Course()
    optimizer.observe(halves)
    order = torch.Generator().manual_seed(0)
    for step in range(STEPS + 1):
        index = torch.randperm(SAMPLES, generator=order)[:BATCH]
        measured = step % EVERY == 0
        if measured:
            course.energies.append(free_energy(*given, posterior=POSTERIOR))
        before = [p.detach().clone() for p in model.parameters()]
        if structured:
            optimizer.step(closure, x[index], y[index])
        else:
            plain.zero_grad()
            closure(x[index], y[index]).mean().backward()
            plain.step()
        if measured and structured:
            after = [p.detach().clone() for p in model.parameters()]
            put(model, before)
            course.loss.append(effect(*given, halves.loss, posterior=POSTERIOR))
            course.structure.append(effect(*given, halves.structure, posterior=POSTERIOR))
            put(model, after)
    return course


def losses_of(model: nn.Module) -> Closure:
    """The cross-entropies of a model."""
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


@torch.no_grad()
def put(model: nn.Module, values: list[Tensor]) -> None:
    """Give the parameters these values."""
    for p, value in zip(model.parameters(), values, strict=True):
        p.copy_(value)


def check(plain: Course, structured: Course) -> None:
    """Assert what the page says."""
    late = structured.structure[10:]
    assert all(change.complexity < 0 < change.accuracy.value for change in late)
    assert sum(change.complexity > 0 for change in structured.loss) > 0.7 * len(structured.loss)
    ends = plain.energies[-1], structured.energies[-1]
    ratios = [ours / theirs for ours, theirs in zip(*map(terms, reversed(ends)), strict=True)]
    assert abs(ratios[0] - 0.94) < 0.03 and abs(ratios[1] - 0.96) < 0.03, ratios


def terms(energy: Energy) -> tuple[float, float]:
    """Complexity and −accuracy, nats per sample."""
    return energy.complexity_per_sample.value, -energy.accuracy_per_sample.value


def draw(plain: Course, structured: Course) -> Figure:
    """The two runs in the plane of both terms, and the halves of single updates."""
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    plane, steps = figure.subplots(1, 2)
    draw_plane(plane, {"SGD": plain, "F3EO": structured})
    places = [EVERY * k for k in range(len(structured.loss))]
    ours, theirs = colour("f3eo"), colour("sgd")
    for changes, ink in ((structured.loss, theirs), (structured.structure, ours)):
        complexity = [c.complexity / SAMPLES for c in changes]
        accuracy = [c.accuracy.value / SAMPLES for c in changes]
        steps.plot(places, complexity, color=ink, linewidth=1.4)
        steps.plot(places, accuracy, color=ink, linewidth=1.4, linestyle=(0, (3, 2)))
    steps.axhline(0, color=INK, linewidth=0.6)
    steps.set(xlabel="step", title="Change by one update, nats per sample", xlim=(0, STEPS))
    notes = ("along g", theirs, 0.96), ("structure term", ours, 0.9)
    for text, ink, height in notes:
        steps.text(0.02, height, text, color=ink, transform=steps.transAxes, fontweight="bold")
    steps.text(0.98, 0.04, "complexity —   accuracy - -", ha="right", transform=steps.transAxes)
    return figure


def draw_plane(axes: Axes, courses: dict[str, Course]) -> None:
    """Complexity against −accuracy; on a diagonal the free energy is the same."""
    for name, course in courses.items():
        x, y = zip(*map(terms, course.energies), strict=True)
        ink = colour(name.lower())
        axes.plot(x, y, color=ink, linewidth=1.5, marker=".", markersize=3)
        axes.plot(x[-1], y[-1], "o", color=ink)
        axes.annotate(
            name, (x[-1], y[-1]), xytext=(8, -3), textcoords="offset points", color=ink,
            fontweight="bold",
        )  # fmt: skip
    axes.set(xlabel="complexity", ylabel="−accuracy", title="Both terms, nats per sample")
    low, high = axes.get_xlim()
    for total in (0.25 * quarter for quarter in range(8, 32)):
        axes.plot(
            [low, high], [total - low, total - high], color="#d1d5db", linewidth=0.7, zorder=0
        )
    axes.set(xlim=(low, high), ylim=(2.4, 3.4))


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    torch.set_num_threads(1)
    plain, structured = run(structured=False), run(structured=True)
    check(plain, structured)
    with matplotlib.rc_context(STYLE):
        figure = draw(plain, structured)
        figure.savefig(folder / "both-terms.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
