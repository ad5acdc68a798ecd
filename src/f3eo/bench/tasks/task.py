"""A task: data, a model, a batch size, a budget, and each method's hyper-parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Samples(NamedTuple):
    """Inputs (N, ...) and class labels (N,)."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """What is trained on and what is measured on; the two never overlap."""

    train: Samples
    test: Samples

    def validation(self, seed: int, share: float = 0.2) -> "Data":
        """Hold out a share of the training samples as `test`; the real test set stays unseen.

        Args:
            seed: decides which are held out.
            share: part of the training samples held out, in (0, 1); default 0.2.

        Returns:
            Data whose `test` is the held-out part of this `train`.
        """
        held_out = int(len(self.train.y) * share)
        order = torch.randperm(len(self.train.y), generator=torch.Generator().manual_seed(seed))
        x, y = self.train.x[order], self.train.y[order]
        return Data(Samples(x[held_out:], y[held_out:]), Samples(x[:held_out], y[:held_out]))


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per-sample cross-entropy in nats: logits (N, C), labels (N,) -> (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class Task:
    """One classification problem, small enough to repeat over seeds.

    Args:
        name: short name, as typed on the command line.
        description: data, sizes and model in one line, for the report.
        load: returns the data, the same at every call.
        model: returns a freshly initialised model; it draws from torch's global generator.
        batch: samples per step.
        budget: cost of one run, in plain gradients of one batch.
        options: hyper-parameters by method name; what is absent keeps the method's default.
        loss: per-sample loss, (logits, y) -> (N,).
    """

    name: str
    description: str
    load: Callable[[], Data]
    model: Callable[[], nn.Module]
    batch: int
    budget: int
    options: Mapping[str, Mapping[str, Any]]
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy

    def seeded_model(self, seed: int) -> nn.Module:
        """A model initialised from `seed`, whatever was drawn before; the global state is kept."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model()
