"""A model with buffers and random numbers, and problems made of it."""

import torch
import torch.nn.functional as F
from torch import nn

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem


class Model(nn.Module):
    """Writes into one buffer, replaces another, creates a third, and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("late", None)

    def forward(self, x):
        self.written.add_(1)
        self.replaced = self.replaced + 1
        self.late = torch.ones(1)
        return F.dropout(self.layer(x), 0.5)


def problem(closure=None, batch=None, model=None, generator=None):
    torch.manual_seed(0)
    model = model or Model()
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    default = lambda x, y: F.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    batch = (x, y) if batch is None else batch
    parameters = list(model.parameters())
    return Problem(
        closure or default, batch, parameters, [True] * len(parameters), model, generator
    )


def run(p, **options):
    """Evaluate a problem; per-sample and differentiable unless `options` say otherwise."""
    return evaluate(p, **({"per_sample": True, "differentiable": True} | options))


def state(p):
    """Buffers and random states, for comparisons."""
    model = p.model
    return (
        model.written.tolist(),
        model.replaced.tolist(),
        model.late if model.late is None else model.late.tolist(),
        torch.get_rng_state().tolist(),
        p.generator and p.generator.get_state().tolist(),
    )
