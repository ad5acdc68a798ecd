"""Prints the table of docs/performance.md: how exact h is in float32 as a network fits.

    python docs/accuracy.py

The truth is a loop over single samples in float64. Differences of a given width, 1.1e-5 ‖θ‖, are
what the default was before its width followed the losses.
"""

import copy
import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f3eo import DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem
from f3eo.fisher.estimator import Gradients

LEVELS = (1.0, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="none")


def truth(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∇ E‖∇ℓ_i‖, one sample at a time."""
    model, parts = copy.deepcopy(model).double(), []
    parameters = list(model.parameters())
    for i in range(len(x)):
        loss = losses(model, x[i : i + 1].double(), y[i : i + 1]).sum()
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        h = torch.autograd.grad(norm / len(x), parameters)
        parts.append(torch.cat([p.flatten() for p in h]))
    return torch.stack(parts).sum(0)


def measured(model: nn.Module, x: Tensor, y: Tensor, estimator: PerSample) -> Gradients:
    parameters = list(model.parameters())
    everywhere = [True] * len(parameters)
    return estimator.gradients(
        Problem(lambda x, y: losses(model, x, y), (x, y), parameters, everywhere, model)
    )


def error(model: nn.Module, x: Tensor, y: Tensor, estimator: PerSample) -> tuple[float, float]:
    """Of h, and what it is expected to be."""
    found, wanted = measured(model, x, y, estimator), truth(model, x, y)
    assert found.structure is not None and found.error is not None
    h = torch.cat([t.flatten() for t in found.structure]).double()
    return float((h - wanted).norm() / wanted.norm()), float(found.error)


def main() -> None:
    logging.getLogger("f3eo").setLevel(logging.ERROR)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)
    model, x, y = nn.Sequential(*layers), torch.randn(32, 10), torch.randint(5, (32,))
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    print("| loss | default | expected | differences of one width | double backward |")
    print("|---|---|---|---|---|")
    for level in LEVELS:
        loss = torch.inf
        while loss >= level:
            adam.zero_grad()
            mean = losses(model, x, y).mean()
            mean.backward()
            adam.step()
            loss = mean.item()
        default, expected = error(model, x, y, PerSample())
        fixed, _ = error(model, x, y, PerSample(FiniteDifference(step=1.1e-5)))
        exact, _ = error(model, x, y, PerSample(DoubleBackward()))
        print(f"| {loss:.1e} | {default:.1e} | {expected:.1e} | {fixed:.1e} | {exact:.1e} |")


if __name__ == "__main__":
    main()
