"""The loss in a plane through the parameters, and the place of a path in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Closure
from f3eo.fisher import Estimator, Gradients, PerSample
from f3eo.instruments.passes import Data, problems
from f3eo.tensors import inner, plus, scaled, squared_norm


@dataclass(frozen=True)
class Plane:
    """Two orthogonal directions of length 1, lists in the shapes of the parameters.

    Args:
        along: d/‖d‖, d = h − (⟨h, g⟩/⟨g, g⟩) g, the direction that lowers the trace and, to first
            order, leaves the loss alone.
        across: g/‖g‖.
    """

    along: list[Tensor]
    across: list[Tensor]


@dataclass(frozen=True)
class Landscape:
    """L(θ + a·along + b·across) on a square grid around θ.

    Args:
        steps: values of a and of b, (n,), from −reach to reach, float64.
        losses: [i, j] is the mean loss in nats at a = steps[i], b = steps[j]; (n, n), float64.
        path: (a, b) of every point of the path, (k, 2), float64: its orthogonal projection.
    """

    steps: Tensor
    losses: Tensor
    path: Tensor


def structure_plane(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    estimator: Estimator | None = None,
) -> Plane:
    """The plane of the loss gradient g and of the structure direction d (`fisher.estimand`).

    Args:
        model, closure, data: see `instruments.passes.problems`.
        estimator: measures g and h; default `PerSample()`.

    Raises:
        ValueError: g or d is zero or not finite, so there is no plane; see also `problems`.
    """
    estimator = estimator if estimator is not None else PerSample()
    measured = [estimator.gradients(problem) for problem in problems(model, closure, data)]
    whole = reduce(Gradients.merged, measured)
    h = whole.structure or []
    g = [torch.zeros_like(t) if p is None else p for p, t in zip(whole.gradient, h, strict=True)]
    squared = squared_norm(g)
    d = plus(h, g, -float(inner(h, g) / squared)) if squared > 0 else h
    lengths = {"loss gradient g": squared.sqrt(), "structure direction d": squared_norm(d).sqrt()}
    for name, length in lengths.items():
        if not 0 < float(length) < float("inf"):
            raise ValueError(
                f"the {name} has length {float(length):g}, so it spans no plane: measure on data "
                f"that the model has not fitted exactly, and a model without NaN"
            )
    across, along = (1 / float(length) for length in lengths.values())
    return Plane(scaled(d, along), scaled(g, across))


@torch.no_grad()
def landscape(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    plane: Plane,
    *,
    reach: float,
    points: int = 21,
    path: Sequence[Sequence[Tensor]] = (),
) -> Landscape:
    """The mean loss on a grid in a plane through θ; the parameters are put back bit for bit.

    Args:
        model, closure, data: see `instruments.passes.problems`; data is swept points² times.
        plane: its directions are in the shapes of the parameters that require a gradient.
        reach: largest |a| and |b|, a distance in parameter space, above 0.
        points: n, odd, so that θ is one of them; default 21. 1 places the path alone.
        path: earlier parameters, each a list in the shapes of the parameters; default none.

    Raises:
        ValueError: reach or points out of range, other shapes; see also `problems`.
    """
    if not 0 < reach < float("inf"):
        raise ValueError(f"reach must be a finite distance > 0, received {reach}")
    if points < 1 or points % 2 == 0:
        raise ValueError(f"points must be odd, received {points}")
    every = list(model.parameters() if isinstance(model, nn.Module) else model)
    parameters = [p for p in every if p.requires_grad]
    shapes = [p.shape for p in parameters]
    for what, vector in [
        *(("the plane", v) for v in (plane.along, plane.across)),
        *(("the path", v) for v in path),
    ]:
        if [t.shape for t in vector] != shapes:
            raise ValueError(
                f"{what} has tensors of other shapes than the {len(shapes)} parameters that "
                f"require a gradient: {[tuple(t.shape) for t in vector]} and "
                f"{[tuple(s) for s in shapes]}"
            )
    model = model if isinstance(model, nn.Module) else every
    origin = [p.clone() for p in parameters]
    steps = torch.linspace(-reach, reach, points, dtype=torch.float64)
    steps[points // 2] = 0.0
    losses = torch.empty(points, points, dtype=torch.float64)
    try:
        for i, a in enumerate(steps.tolist()):
            for j, b in enumerate(steps.tolist()):
                _move(parameters, origin, plane, a, b)
                losses[i, j] = _mean_loss(model, closure, data)
    finally:
        for p, o in zip(parameters, origin, strict=True):
            p.copy_(o)
    places = [_place(point, origin, plane) for point in path]
    return Landscape(steps, losses, torch.tensor(places, dtype=torch.float64).reshape(-1, 2))


def _move(
    parameters: Sequence[Tensor], origin: Sequence[Tensor], plane: Plane, a: float, b: float
) -> None:
    """θ ← origin + a·along + b·across."""
    for p, o, u, v in zip(parameters, origin, plane.along, plane.across, strict=True):
        p.copy_(o + a * u + b * v)


def _mean_loss(model: nn.Module | list[Tensor], closure: Closure, data: Data) -> float:
    total = weight = 0.0
    for problem in problems(model, closure, data):
        output = evaluate(problem, per_sample=False, differentiable=False, enable_grad=False)
        share = float(output.shares.total)
        total += share * float(output.mean())
        weight += share
    return total / weight


def _place(point: Sequence[Tensor], origin: Sequence[Tensor], plane: Plane) -> list[float]:
    moved = [q.to(o) - o for q, o in zip(point, origin, strict=True)]
    return [float(inner(moved, plane.along)), float(inner(moved, plane.across))]
