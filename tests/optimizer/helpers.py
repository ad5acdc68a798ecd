"""What the tests of the optimizer share: the table of base optimizers, models, snapshots."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_optimizer import SOAP
from schedulefree import AdamWScheduleFree, SGDScheduleFree
from torch import Tensor, nn
from torch import optim as o
from torch.optim import Optimizer

from cases import WHOLE, Case, case
from f3eo import (
    F3EO,
    Categorical,
    Coupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
)
from f3eo.extend import Estimator

UNKNOWN = "ignore:F3EO knows no metric"


@dataclass(frozen=True)
class Row:
    """A base optimizer with options under which it trains the small networks here.

    Args:
        kind, options: as F3EO takes them.
        known: whether its metric is in the table of `f3eo.direction.metric`.
        bias: whether it takes parameters that are no matrices.
    """

    kind: Callable[..., Optimizer]
    options: dict[str, Any] = field(default_factory=dict)
    known: bool = True
    bias: bool = True

    def plain(self, parameters: Iterable[Any]) -> Optimizer:
        return self.kind(parameters, **self.options)

    def wrapped(self, model: Any, **options: Any) -> F3EO:
        return F3EO(model, self.kind, **self.options, **WHOLE | options)


def training(kind: Callable[..., Any]) -> Callable[..., Optimizer]:
    """A schedule-free optimizer in the mode it is trained in."""

    def make(parameters: Iterable[Any], **options: Any) -> Optimizer:
        optimizer = kind(parameters, **options)
        optimizer.train()
        return optimizer

    return make


BASES: dict[str, Row] = {
    "sgd": Row(o.SGD, {"lr": 0.1}),
    "momentum": Row(o.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
    "nesterov": Row(o.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}),
    "adam": Row(o.Adam, {"lr": 0.02}),
    "adam_decay": Row(o.Adam, {"lr": 0.02, "weight_decay": 0.1}),
    "adam_foreach": Row(o.Adam, {"lr": 0.02, "foreach": True}),
    "adam_fused": Row(o.Adam, {"lr": 0.02, "fused": True}),
    "amsgrad": Row(o.Adam, {"lr": 0.02, "amsgrad": True, "betas": (0.9, 0.5)}),
    "adamw": Row(o.AdamW, {"lr": 0.02, "weight_decay": 0.1}),
    "nadam": Row(o.NAdam, {"lr": 0.02}),
    "radam": Row(o.RAdam, {"lr": 0.05, "betas": (0.9, 0.9)}),
    "adamax": Row(o.Adamax, {"lr": 0.02}),
    "rmsprop": Row(o.RMSprop, {"lr": 0.01}),
    "rmsprop_centered": Row(o.RMSprop, {"lr": 0.005, "centered": True, "momentum": 0.5}),
    "adagrad": Row(o.Adagrad, {"lr": 0.1, "lr_decay": 0.05}),
    "adadelta": Row(o.Adadelta, {"lr": 2.0, "rho": 0.5}, known=False),
    "rprop": Row(o.Rprop, {"lr": 0.01}, known=False),
    "asgd": Row(o.ASGD, {"lr": 0.1}, known=False),
    "muon": Row(o.Muon, {"lr": 0.02}, known=False, bias=False),
    "soap": Row(SOAP, {"lr": 0.02}, known=False),
    "sgd_free": Row(training(SGDScheduleFree), {"lr": 0.3}),
    "adamw_free": Row(training(AdamWScheduleFree), {"lr": 0.03}, known=False),
    "partial": Row(partial(o.AdamW, lr=0.02, betas=(0.8, 0.99))),
    "factory": Row(lambda parameters: o.SGD(parameters, lr=0.1, momentum=0.5)),
}
PRECONDITIONED = [
    name for name, row in BASES.items() if row.known and "sgd" not in name and row.kind is not o.SGD
]
PRECONDITIONED = [name for name in PRECONDITIONED if name not in ("factory", "sgd_free")]


def network(row: Row | None = None, seed: int = 0) -> Case:
    """The MLP of the table of models, without biases where the base takes matrices only."""
    if row is None or row.bias:
        return case("mlp", seed)
    torch.manual_seed(seed)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.randint(3, (6,))
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False))
    return Case(model.double(), (x, y))


def batches(count: int, size: int = 6, dtype: torch.dtype = torch.float64) -> list[Any]:
    """Batches (x, y) for `network`."""
    generator = torch.Generator().manual_seed(7)
    return [
        (
            torch.randn(size, 5, generator=generator, dtype=dtype),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def losses(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The closure of a classifier."""
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def gradient(model: nn.Module, batch: Any) -> list[Tensor]:
    """∇L by autograd."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    return list(torch.autograd.grad(loss, list(model.parameters())))


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All tensors in a row, in float64."""
    return torch.cat([t.detach().reshape(-1).double() for t in tensors])


def weights(model: nn.Module) -> Tensor:
    """All parameters in a row, a copy."""
    return flat(model.parameters()).clone()


def bits(thing: Any) -> Any:
    """A nesting of tensors as bytes, so that == means bit for bit (NaN included)."""
    if isinstance(thing, Tensor):
        data = thing.detach().contiguous().reshape(-1).view(torch.uint8)
        return str(thing.dtype), tuple(thing.shape), bytes(data.tolist())
    if isinstance(thing, dict):
        return {key: bits(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [bits(value) for value in thing]
    return thing


def everything(model: nn.Module, optimizer: F3EO) -> dict[str, Any]:
    """Bits of all that a step may change."""
    generator = optimizer.generator
    return {
        "parameters": bits(dict(model.named_parameters())),
        "buffers": bits(dict(model.named_buffers())),
        "grads": {name: bits(p.grad) for name, p in model.named_parameters()},
        "base": bits(optimizer.base.state_dict()),
        "trace": bits(optimizer.trace),
        "steps": optimizer.steps,
        "random": bits(torch.get_rng_state()),
        "generator": generator and bits(generator.get_state()),
    }


class Counting(Estimator):
    """PerSample that counts its use and keeps the sizes of what it saw."""

    additive = True
    forwards = 7.0

    def __init__(self):
        self.inner = PerSample(DoubleBackward(), power=2)
        self.sizes = []

    def gradients(self, problem):
        self.sizes.append(len(problem.batch[0]))
        return self.inner.gradients(problem)

    def trace(self, problem, *, differentiable=True):
        return self.inner.trace(problem, differentiable=differentiable)


def structure_term(row, batch, optimizer):
    """The structure term that a step of SGD adds to .grad, and ∇L."""
    g = flat(gradient(row.model, batch))
    optimizer.step(row.losses, *batch)
    return flat(p.grad for p in row.model.parameters()) - g, g


ESTIMATORS = {
    "exact": lambda: PerSample(DoubleBackward(), power=2),
    "exact, differences": lambda: PerSample(FiniteDifference(), power=2),
    "model": ModelSampled,
    "sign": Sign,
    "batch": MiniBatch,
    "sign, differences": lambda: Sign(FiniteDifference()),
    "batch, differences": lambda: MiniBatch(FiniteDifference(central=True)),
}
DIFFERENCES = ("exact, differences", "sign, differences", "batch, differences")


def stepped(model, forward, batch, estimator, lr=0.0, rule=None, **options):
    """An optimizer of `model` after one step whose .grad is g + h, or h alone with `Direct`."""
    generator = torch.Generator().manual_seed(1)
    optimizer = F3EO(
        model,
        o.SGD,
        lr=lr,
        estimator=estimator,
        rule=rule or Coupled(),
        strength=Fixed(1.0),
        generator=generator,
        **WHOLE | options,
    )
    optimizer.step(lambda x, y: Categorical(forward(model, x), y), *batch)
    return optimizer


def grads(model):
    return flat(p.grad for p in model.parameters())


def plain(model, x):
    return model(x)
