"""Hutchinson estimates of the Hessian diagonal: AdaHessian and SophiaH from pytorch_optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_optimizer import AdaHessian, SophiaH
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from f3eo.bench.methods.method import Closure, Method, Source, Stepper


class GraphStepper(Stepper):
    """One gradient with its graph, which the optimizer differentiates again.

    The packages document `backward(create_graph=True)`. `autograd.grad` gives the same gradient
    without torch's warning and without the reference cycle that keeps the graph alive.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One gradient with its graph, one step, then drop the graph."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
            loss = closure(x, y).mean()
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        for p, g in zip(parameters, gradient, strict=True):
            p.grad = g
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def adahessian(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """AdaHessian; its probes come from torch's global generator."""
    return GraphStepper(AdaHessian(model.parameters(), **options))


def sophia(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Sophia with Hutchinson's estimator; its probes come from torch's global generator."""
    return GraphStepper(SophiaH(model.parameters(), **options))


NEEDS = "gradient with its graph (create_graph)"

METHODS = (
    Method(
        name="adahessian",
        label="AdaHessian",
        colour="#4b0082",
        order=2,
        kind="Hessian diagonal",
        needs=NEEDS,
        source=Source("pytorch-optimizer", "pytorch_optimizer.AdaHessian", "arXiv 2006.00719"),
        defaults={"lr": 0.1, "weight_decay": 0.0},
        build=adahessian,
        note="no spatial averaging of the diagonal, which the paper has",
    ),
    Method(
        name="sophia",
        label="Sophia-H",
        colour="#9467bd",
        order=2,
        kind="Hessian diagonal",
        needs=NEEDS,
        source=Source("pytorch-optimizer", "pytorch_optimizer.SophiaH", "arXiv 2305.14342"),
        defaults={"lr": 0.06, "weight_decay": 0.0, "p": 1e-2, "update_period": 10},
        build=sophia,
    ),
)
