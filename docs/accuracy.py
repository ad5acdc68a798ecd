"""Print the table of docs/performance.md: the error of h in float32 while a network fits its batch.

    python docs/accuracy.py    # ten seconds

The truth is a loop over single samples in float64. The column "differences of one width" uses
differences 1.1e-5 ‖θ‖ wide, whatever the losses.
"""

import copy
import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f3eo import DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem
from f3eo.extend import Gradients

LEVELS = (1.0, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
"""Mean losses below which a row of the table is measured."""


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """ℓ_i, (B,)."""
    return F.cross_entropy(model(x), y, reduction="none")


def truth(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """h = ∇ (1/B) Σ_i ‖∇ℓ_i‖ in float64, one sample at a time."""
    model, rows = copy.deepcopy(model).double(), []
    parameters = list(model.parameters())
    for i in range(len(x)):
        loss = losses(model, x[i : i + 1].double(), y[i : i + 1]).sum()
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        h = torch.autograd.grad(norm / len(x), parameters)
        rows.append(torch.cat([p.flatten() for p in h]))
    return torch.stack(rows).sum(0)


def measure(model: nn.Module, x: Tensor, y: Tensor, estimator: PerSample) -> Gradients:
    """What the estimator gives on this batch, all parameters structured."""
    parameters = list(model.parameters())
    structured = [True] * len(parameters)
    return estimator.gradients(
        Problem(lambda x, y: losses(model, x, y), (x, y), parameters, structured, model)
    )


def error(model: nn.Module, x: Tensor, y: Tensor, estimator: PerSample) -> tuple[float, float]:
    """The relative error of h, and the error that the estimator expects."""
    gradients, exact = measure(model, x, y, estimator), truth(model, x, y)
    assert gradients.structure is not None and gradients.error is not None
    h = torch.cat([t.flatten() for t in gradients.structure]).double()
    return float((h - exact).norm() / exact.norm()), float(gradients.error)


def main() -> None:
    """Fit a small network, and print a row whenever its loss falls below a level."""
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
