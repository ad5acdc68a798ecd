"""Gradient-equivalents: the counted cost of a step, in plain gradients.

The unit is one forward and one backward pass of a batch. Cost is the number of matrix products: a
linear layer takes one in a forward pass and two in a backward pass; a double backward takes as many
as autograd makes. torch's FlopCounterMode counts them on a tiny network, with a batch and with that
batch doubled; the difference is the work on samples. Products that an optimizer makes on its own,
as Muon and SOAP do, do not grow with the batch and are not counted; measured times include them.

The first step is not counted (F3EO checks the model in it); the ten after it are (LookSAM, Sophia
and SOAP do more work every few steps).
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from f3eo.bench.methods import METHODS, Stepper
from f3eo.bench.methods.method import GradientStepper

WIDTH, BATCH, STEPS = 16, 16, 10


class Count(NamedTuple):
    """The mean cost of one step.

    Attributes:
        gradient_equivalents: matrix products on samples, over those of a plain gradient.
        calls: number of evaluations of the closure.
    """

    gradient_equivalents: float
    calls: float


def count(method: str, options: Mapping[str, Any]) -> Count:
    """The cost of a method's step; torch's global generator is restored.

    Args:
        method: name of the method.
        options: all its hyper-parameters.
    """
    return _count(method, json.dumps(dict(options), sort_keys=True))


@lru_cache
def _count(method: str, options: str) -> Count:
    def build(model: nn.Module) -> Stepper:
        return METHODS[method].build(model, json.loads(options), 0)

    warmup = 1
    if method == "f3eo":
        # F3EO checks itself at its first, fourth and sixteenth measurement; the warm-up covers the
        # first two. A fitted model would change its cost, so the learning rate is tiny.
        parsed = json.loads(options)
        warmup, options = 4 * parsed["every"], json.dumps(parsed | {"lr": 1e-9})
    samples, calls = _work(build, warmup)
    plain, _ = _work(lambda model: GradientStepper(torch.optim.SGD(model.parameters(), lr=0.1)))
    return Count(round(samples / plain, 6), calls / STEPS)


def _work(build: Any, warmup: int = 1) -> tuple[int, int]:
    """Operations that grow with the batch, and evaluations of the closure, in STEPS steps."""
    small, _ = _operations(build, 1, warmup)
    large, calls = _operations(build, 2, warmup)
    return large - small, calls


def _operations(build: Any, copies: int, warmup: int) -> tuple[int, int]:
    """Operations in matrix products, and evaluations, on a batch of this many copies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, y = torch.randn(BATCH, WIDTH), torch.randint(WIDTH, (BATCH,))
        model = network()
        x, y, calls = x.repeat(copies, 1), y.repeat(copies), 0

        def closure(x: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return F.cross_entropy(model(x), y, reduction="none")

        stepper = build(model)
        with FlopCounterMode(display=False):  # as below: no step is compiled in this mode
            for _ in range(warmup):
                stepper.step(closure, x, y)
        calls = 0
        with FlopCounterMode(display=False) as counter:
            for _ in range(STEPS):
                stepper.step(closure, x, y)
        return counter.get_total_flops(), calls


def network() -> nn.Module:
    """Three linear layers after a LayerNorm, so the first also needs the gradient of its input."""
    return nn.Sequential(
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
    )
