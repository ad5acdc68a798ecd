"""A model that steps are priced on: its module, random data of its shape, its per-sample loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module that `make` initialises from this seed; torch's global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


@dataclass(frozen=True)
class Model:
    """A classifier of samples or of every position, with random data.

    Args:
        name: short name, as typed on the command line.
        label: what it is, in a line.
        batch: samples in a batch.
        make: () -> a module, initialised from torch's global generator.
        draw: (samples, generator) -> inputs (B, …) and targets (B,) or (B, T).
    """

    name: str
    label: str
    batch: int
    make: Callable[[], nn.Module]
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]

    def build(self, seed: int) -> nn.Module:
        """The module, initialised from this seed."""
        return seeded(self.make, seed)

    def data(self, samples: int, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs (B, …) and targets (B,) or (B, T), drawn from this seed."""
        return self.draw(samples, torch.Generator().manual_seed(seed))

    @staticmethod
    def losses(module: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy in nats, in the shape of the targets, (B,) or (B, T)."""
        logits = module(x)
        return F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def images(*shape: int, classes: int) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    """A function that draws standard normal inputs (B, *shape) and uniform targets (B,)."""

    def draw(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(samples, *shape, generator=generator)
        return x, torch.randint(classes, (samples,), generator=generator)

    return draw
