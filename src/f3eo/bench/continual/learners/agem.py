"""A-GEM: the gradient may not point against that of a memory of earlier stages.

Chaudhry et al. 2019 (1812.00420), section 4. As there, a stage's samples enter the memory when it
ends. The memory is a reservoir over the samples of all ended stages; the paper keeps as many of
every task and class.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.bench.continual.learners.learner import Batches, Learner, Peer
from f3eo.bench.continual.learners.replay import MEMORY, reservoir
from f3eo.bench.continual.learners.spaces import MOMENTUM, SGD, SGD_RATE
from f3eo.bench.methods import Closure
from f3eo.bench.methods.method import Source
from f3eo.continual import Memory
from f3eo.tensors import Vector, filled, inner, plus, squared_norm


def projected(gradient: Vector, reference: Vector) -> Vector:
    """g̃ = g − (gᵀ g_ref / g_refᵀ g_ref) g_ref where gᵀ g_ref < 0, and g itself elsewhere.

    Args:
        gradient: g, of the current batch, one tensor a parameter.
        reference: g_ref, of the memory, in the same shapes.

    Source: eq. 11.
    """
    product = float(inner(gradient, reference))
    if not product < 0:
        return gradient
    return plus(gradient, reference, -product / float(squared_norm(reference)))


class AGem(Learner):
    """An optimizer along projected gradients.

    Args:
        parameters: what it trains.
        optimizer: steps along g̃.
        memory: of samples (x, y) of stages that have ended.
        samples: of the memory that give g_ref at a step.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        optimizer: torch.optim.Optimizer,
        memory: Memory,
        samples: int,
    ) -> None:
        self.parameters, self.memory, self.samples = list(parameters), memory, samples
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One step along g̃; the loss is that of the current batch."""
        loss, gradient = self._gradient(closure, x, y)
        drawn = self.memory.draw(self.samples)
        if drawn is not None:
            gradient = projected(gradient, self._gradient(closure, *drawn)[1])
        for p, g in zip(self.parameters, gradient, strict=True):
            p.grad = g
        self.optimizers[0].step()
        return loss

    def end(self, closure: Closure, batches: Batches) -> None:
        """Offer the samples of this stage to the memory."""
        for batch in batches:
            self.memory.add(*batch)

    def _gradient(self, closure: Closure, x: Tensor, y: Tensor) -> tuple[Tensor, Vector]:
        loss = closure(x, y).mean()
        gradient = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return loss.detach(), filled(gradient, self.parameters)


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> AGem:
    """A-GEM over SGD."""
    own = {name: options[name] for name in SGD}
    optimizer = torch.optim.SGD(model.parameters(), **own)
    memory = reservoir(options, seed)
    return AGem(model.parameters(), optimizer, memory, options["samples"])


PEER = Peer(
    name="agem",
    label="A-GEM",
    colour="#2e7d32",
    kind="memory",
    source=Source("f3eo", f"{__name__}.AGem", "arXiv 1812.00420"),
    # As far a step as lr 0.01 takes with momentum 0.8, lr/(1 − 0.8).
    defaults={**SGD, "lr": 0.05, "momentum": 0.0, **MEMORY, "samples": 64},
    space={**SGD_RATE, **MOMENTUM},
    build=build,
    note="the memory takes in a stage's samples when it ends; a step costs two gradients then",
)
