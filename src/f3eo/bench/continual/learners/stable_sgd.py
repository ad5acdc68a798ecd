"""The recipe of Stable SGD around any learner: a rate that falls from stage to stage, and dropout.

Mirzadeh et al. 2020 (2006.06958), section 4: a large first rate that falls, dropout and small
batches find wide minima and stay near them. The batch is the stream's. Of the authors' code
(`stable_sgd/main.py`, `models.py`) this differs in three ways:

- the first stage has the rate lr itself; there γ multiplies it already in the first stage;
- dropout is off in evaluation; there `F.dropout` without `training=` leaves it on in tests, too;
- momentum is kept from stage to stage; there every task makes a new SGD. At momentum 0.8 it lasts
  some ten steps.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import FloatDistribution
from torch import Generator, Tensor, nn

from f3eo.bench.continual.learners.dropout import drawing_from, insert_dropout
from f3eo.bench.continual.learners.learner import Batches, Build, Learner, Peer, Plain, Space
from f3eo.bench.continual.learners.spaces import SGD, SGD_RATE, STRUCTURE
from f3eo.bench.methods import METHODS, Closure
from f3eo.bench.methods.method import Source

FLOOR = 5e-5
"""The rate falls no further, as in the authors' code."""


def rate(first: float, gamma: float, stage: int) -> float:
    """lr_k = max(lr γ^(k−1), 5e-5) in the k-th stage; a first rate below 5e-5 stays as it is.

    Args:
        first: lr, the rate of the first stage.
        gamma: γ, the factor from stage to stage.
        stage: k − 1, from 0.
    """
    return max(first * gamma**stage, min(first, FLOOR))


class Stable(Learner):
    """A learner within the recipe.

    Args:
        model: what it trains; gets dropout.
        inner: trains it.
        gamma: γ of `rate`, in (0, 1].
        dropout: share of hidden activations that are dropped, in [0, 1).
        seed: of the masks on the processor; an accelerator draws them from its own global
            generator.

    Raises:
        ValueError: gamma or dropout out of range; a model without activation modules.
    """

    def __init__(
        self, model: nn.Module, inner: Learner, *, gamma: float, dropout: float, seed: int
    ) -> None:
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma is a factor in (0, 1], received {gamma}; 1 keeps the rate")
        insert_dropout(model, dropout)
        self.inner, self.gamma = inner, gamma
        self.optimizers = inner.optimizers
        self._first = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self._generator = Generator().manual_seed(seed)

    def begin(self, stage: int, steps: int) -> None:
        """Set the rate of this stage."""
        for optimizer, rates in zip(self.optimizers, self._first, strict=True):
            for group, first in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate(first, self.gamma, stage)
        self.inner.begin(stage, steps)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """The inner step, with masks from the learner's own generator."""
        with drawing_from(self._generator):
            return self.inner.step(closure, x, y)

    def end(self, closure: Closure, batches: Batches) -> None:
        """See `Learner.end`."""
        self.inner.end(closure, batches)


RECIPE: dict[str, Any] = {"gamma": 0.8, "dropout": 0.25}
LARGE = {"lr": 0.03}
"""The authors' first rate is 0.1, at which runs of 5,000 samples a stage diverge here."""
UNMASKED = {**LARGE, **RECIPE, "dropout": 0.0}
"""For an importance: a masked pass has other squares."""
GAMMA = {"gamma": FloatDistribution(0.5, 0.95)}
SPACE = {**GAMMA, "dropout": FloatDistribution(0.0, 0.5)}
PAPER = "arXiv 2006.06958"


def stable(build: Build) -> Build:
    """Within the recipe, a learner; the recipe's options stand beside its own.

    Args:
        build: of the learner.
    """

    def built(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stable:
        own = {name: value for name, value in options.items() if name not in RECIPE}
        recipe = {name: options[name] for name in RECIPE}
        return Stable(model, build(model, own, seed), **recipe, seed=seed)

    return built


def _peer(method: str, name: str, label: str, colour: str, space: Space) -> Peer:
    inner = METHODS[method]

    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Plain:
        return Plain(inner.build(model, options, seed))

    return Peer(
        name=name,
        label=label,
        colour=colour,
        kind="plain",
        source=Source("f3eo", f"{__name__}.Stable", PAPER),
        defaults={**inner.defaults, **SGD, **LARGE, **RECIPE},
        space={**SGD_RATE, **space, **SPACE},
        build=stable(build),
        note="rate lr gamma^(k-1) in stage k, dropout on hidden activations while training",
        idle=inner.idle,
    )


PEERS = (
    _peer("sgd", "stable_sgd", "Stable SGD", "#374151", {}),
    _peer("f3eo", "f3eo_stable", "F3EO, stable recipe", "#880e4f", STRUCTURE),
)
