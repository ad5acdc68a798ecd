"""A task: data, model, batch size, budget, score and tuned hyper-parameters, as one record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from f3eo.bench.models.model import seeded
from f3eo.bench.tasks.corruption import Corruption


class Samples(NamedTuple):
    """Inputs (N, ...) and class labels (N,), or (N, T) with one label per position."""

    x: Tensor
    y: Tensor

    def at(self, numbers: Tensor) -> "Samples":
        """Copies of the samples with these numbers, or where a mask (N,) is true."""
        return Samples(self.x[numbers], self.y[numbers])


class Data(NamedTuple):
    """Training samples and test samples, without overlap.

    Attributes:
        train, test: the samples.
        source: the files it was read from, where these can differ; default empty.
    """

    train: Samples
    test: Samples
    source: str = ""

    def to(self, device: str) -> "Data":
        """The data with all samples on a device; itself if they are there."""
        train, test = (Samples(*(t.to(device) for t in part)) for part in (self.train, self.test))
        return self._replace(train=train, test=test)

    def validation(self, seed: int, share: float = 0.2) -> "Data":
        """Hold out a share of the training samples for validation; the test set is not used.

        Noisy labels stay noisy in the held-out part, as in real data.

        Args:
            seed: determines which samples are held out.
            share: share of the training samples that is held out, in (0, 1); default 0.2.

        Returns:
            Data whose `test` is the held-out part of this `train`.
        """
        test, train = (  # copies: a view of the held-out part would keep all samples in memory
            self.train.at(part) for part in parted(len(self.train.y), seed, share)
        )
        return self._replace(train=train, test=test)


def parted(count: int, seed: int, share: float) -> tuple[Tensor, Tensor]:
    """The numbers of `count` samples in two random parts, ⌊share · count⌋ of them in the first."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: int(count * share)], order[int(count * share) :]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per-sample cross-entropy in nats; the mean over positions where a sample has several.

    Args:
        logits: (N, C) or (N, T, C).
        y: (N,) or (N, T).

    Returns:
        Losses (N,).
    """
    losses = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)
    return losses if losses.dim() == 1 else losses.mean(1)


@dataclass(frozen=True)
class Task:
    """A classification problem, small enough to repeat over seeds.

    Args:
        name: name on the command line.
        description: data, sizes and model in one line, for the report.
        load: () -> the data, the same at every call.
        model: () -> a newly initialised model; it draws from torch's global generator.
        batch: samples per step.
        budget: cost of a run, in plain gradients of one batch.
        target: score at which a run counts as having reached the target.
        splits: number of held-out splits over which a study averages the score of a trial;
            default 1, more where few samples are held out.
        base: usual base optimizer of methods that wrap one, as F3EO does, in a study: "sgd", the
            default, or "adamw" for transformers.
        decay: range (low, high) in which Adam's weight decay is searched, where the literature on
            the task uses another than `f3eo.bench.plan.spaces`; default None, the range there.
        rates: factor on the learning rates that are searched, of every method; default 1, below 1
            for fine-tuning.
        score: the quantity that ranks trials and results, "accuracy" or "loss"; default "accuracy".
        options: hyper-parameters by method, tuned for comparisons; default none, all defaults.
        loss: per-sample loss, (logits, y) -> (N,); default `cross_entropy`.
        evaluations: number of measurements during a run; default 25.
        probe: number of training samples for the training loss and Tr F; default 1000.
        curve_test: number of test samples, from the first on, for the points of the curve; the end
            of a run is measured on all. Default None, all.
        corruptions: of the test inputs, for the end of a run; default none, as for texts.
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
    rates: float = 1.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    evaluations: int = 25
    probe: int = 1000
    curve_test: int | None = None
    corruptions: Sequence[Corruption] = ()

    @property
    def column(self) -> str:
        """The name of the score in curves and final values: "test_accuracy" or "test_loss"."""
        return f"test_{self.score}"

    def reached(self, score: float) -> bool:
        """Whether a score is at least as good as the target."""
        return score >= self.target if self.score == "accuracy" else score <= self.target

    def seeded_model(self, seed: int) -> nn.Module:
        """A model initialised from `seed`; torch's global random state is restored."""
        return seeded(self.model, seed)
