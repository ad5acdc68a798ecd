"""Gradient-equivalents: what a step of a method costs in plain gradients, counted, not believed.

The unit is one forward and one backward pass of a batch: 1. Everything else counts by the
matrix products it takes: a linear layer takes one in a forward pass and two in a backward pass, and
a double backward whatever autograd makes of it. They are counted by torch's FlopCounterMode on a
tiny network, twice, with a batch and with that batch doubled; the difference is the work on
samples. What an optimizer multiplies on its own, as Muon and SOAP do, does not grow with the batch
and is left to the clock.

The first step is not counted (F3EO then checks the model), the ten after it are (LookSAM, Sophia
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
    """What one step takes, on average.

    Attributes:
        gradient_equivalents: matrix products on samples over those of a plain gradient.
        calls: evaluations of the loss.
    """

    gradient_equivalents: float
    calls: float


def count(method: str, options: Mapping[str, Any]) -> Count:
    """Count a method's steps; torch's global generator stays as it was.

    Args:
        method: name of the method.
        options: all its hyper-parameters.
    """
    return _count(method, json.dumps(dict(options), sort_keys=True))


@lru_cache
def _count(method: str, options: str) -> Count:
    def build(model: nn.Module) -> Stepper:
        return METHODS[method].build(model, json.loads(options), 0)

    settling = 1
    if method == "f3eo":
        # It checks itself at its first and fourth measurement, and then at its sixteenth; and
        # where everything is fitted it does something else, so nothing is learned here.
        given = json.loads(options)
        settling, options = 4 * given["every"], json.dumps(given | {"lr": 1e-9})
    samples, calls = _work(build, settling)
    plain, _ = _work(lambda model: GradientStepper(torch.optim.SGD(model.parameters(), lr=0.1)))
    return Count(round(samples / plain, 6), calls / STEPS)


def _work(build: Any, settling: int = 1) -> tuple[int, int]:
    """Operations that grow with the batch, and evaluations of the loss, of STEPS steps."""
    small, _ = _operations(build, 1, settling)
    large, calls = _operations(build, 2, settling)
    return large - small, calls


def _operations(build: Any, copies: int, settling: int) -> tuple[int, int]:
    """Operations in matrix products, and evaluations, on a batch that is repeated so often."""
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
        with FlopCounterMode(display=False):  # as what is counted: nothing is compiled under it
            for _ in range(settling):
                stepper.step(closure, x, y)
        calls = 0
        with FlopCounterMode(display=False) as counter:
            for _ in range(STEPS):
                stepper.step(closure, x, y)
        return counter.get_total_flops(), calls


def network() -> nn.Module:
    """Linear layers; behind the scale of a LayerNorm, so that the first needs both gradients."""
    return nn.Sequential(
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
    )
