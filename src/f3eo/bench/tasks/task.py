"""A task: data, a model, a batch size, a budget, a score, and what is tuned for compare."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from f3eo.bench.models.model import seeded


class Samples(NamedTuple):
    """Inputs (N, ...) and class labels (N,), or (N, T) where every position has one."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """What is trained on and what is measured on; the two never overlap.

    `source` says which files it came from, where there is more than one choice.
    """

    train: Samples
    test: Samples
    source: str = ""

    def validation(self, seed: int, share: float = 0.2) -> "Data":
        """Hold out a share of the training samples as `test`; the real test set stays unseen.

        Labels with noise are held out as they are: who tunes on such data has no others.

        Args:
            seed: decides which are held out.
            share: part of the training samples held out, in (0, 1); default 0.2.

        Returns:
            Data whose `test` is the held-out part of this `train`.
        """
        held_out = int(len(self.train.y) * share)
        order = torch.randperm(len(self.train.y), generator=torch.Generator().manual_seed(seed))
        x, y = self.train.x[order], self.train.y[order]
        train, test = Samples(x[held_out:], y[held_out:]), Samples(x[:held_out], y[:held_out])
        return self._replace(train=train, test=test)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per-sample cross-entropy in nats, the mean over positions where a sample has several.

    Args:
        logits: (N, C) or (N, T, C).
        y: (N,) or (N, T).

    Returns:
        (N,).
    """
    losses = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)
    return losses if losses.dim() == 1 else losses.mean(1)


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
        target: value of the score that counts as reached, on the curve.
        splits: ways to hold samples out that a study's trials are judged on, their scores averaged;
            default 1, more where few samples are held out.
        base: what sharpness-aware methods and F3EO wrap in a study: "sgd", or "adamw" for
            transformers.
        decay: range of Adam's weight decay that is searched, where the literature on the task has
            another than `f3eo.bench.plan.spaces`; default None, the range there.
        score: what tuning judges by, on held-out or test samples: "accuracy" or "loss".
        options: hyper-parameters by method name; what is absent keeps the method's default.
        loss: per-sample loss, (logits, y) -> (N,).
        evaluations: times a run is measured during training; default 25.
        probe: training samples for the training loss and Tr F; default 1000.
        curve_test: test samples, the first of them, that points on the curve are measured on; the
            end of a run is measured on all. None, the default: all.
    """

    name: str
    description: str
    load: Callable[[], Data]
    model: Callable[[], nn.Module]
    batch: int
    budget: int
    target: float
    score: Literal["accuracy", "loss"] = "accuracy"
    splits: int = 1
    base: Literal["sgd", "adamw"] = "sgd"
    decay: tuple[float, float] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    evaluations: int = 25
    probe: int = 1000
    curve_test: int | None = None

    @property
    def column(self) -> str:
        """Where curve and final values hold the score: "test_accuracy" or "test_loss"."""
        return f"test_{self.score}"

    def reached(self, score: float) -> bool:
        """Whether a score is as good as the target."""
        return score >= self.target if self.score == "accuracy" else score <= self.target

    def seeded_model(self, seed: int) -> nn.Module:
        """A model initialised from `seed`, whatever was drawn before; the global state is kept."""
        return seeded(self.model, seed)
