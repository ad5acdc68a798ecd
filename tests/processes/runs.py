"""Training runs that one process and several make alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from cases import WHOLE
from f3eo import (
    F3EO,
    ByRow,
    Categorical,
    DoubleBackward,
    Elementwise,
    Factored,
    FiniteDifference,
    Fitted,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
    Weighted,
)

BATCH, STEPS = 12, 6


class Net(nn.Module):
    """Two layers, and one that a sample uses where its first entry is above 1."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7, bias=bias)
        self.last = nn.Linear(7, 3, bias=bias)
        self.rare = nn.Linear(7, 3, bias=bias)
        self.never = nn.Linear(2, 2, bias=bias)
        self.register_buffer("offset", torch.zeros(3))  # which a wrapper would send at every pass

    def forward(self, x: Tensor, rarely: bool = False) -> Tensor:
        hidden, rare = torch.tanh(self.first(x)), x[:, 0] > 1
        out = self.last(hidden) + self.offset
        return out + rare[:, None] * self.rare(hidden) if rarely and bool(rare.any()) else out


def net(bias: bool = True) -> Net:
    torch.manual_seed(3)
    return Net(bias).double()


def data() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Batches of inputs, labels and weights of samples."""
    g = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(BATCH, 5, generator=g, dtype=torch.float64),
            torch.randint(3, (BATCH,), generator=g),
            torch.rand(BATCH, generator=g, dtype=torch.float64).round(decimals=2),
        )
        for _ in range(STEPS)
    ]


def plain(model: Any) -> Callable[..., Any]:
    return lambda x, y, w: F.cross_entropy(model(x), y, reduction="none")


def weighted(model: Any) -> Callable[..., Any]:
    return lambda x, y, w: Weighted(F.cross_entropy(model(x), y, reduction="none"), w)


def weightless(model: Any) -> Callable[..., Any]:
    """Weights of 0, which are all that some processes have."""
    return lambda x, y, w: Weighted(F.cross_entropy(model(x), y, reduction="none"), w * (y < 2))


def likelihood(model: Any) -> Callable[..., Any]:
    return lambda x, y, w: Categorical(model(x), y)


def rarely(model: Any) -> Callable[..., Any]:
    return lambda x, y, w: F.cross_entropy(model(x, rarely=True), y, reduction="none")


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        base, options: of F3EO.
        sizes: samples of every process at each step, by the number of processes; the last entry
            serves for all later steps.
        closure: of the model.
        wrap: how the model meets DistributedDataParallel.
        micro: number of micro-batches a step; 0 is `step(closure, *batch)`.
        seeded: whether every process draws from a generator; the truth is then one process that
            accumulates the parts with their own draws.
        bias: whether layers have one.
        tolerance: to one process, relative to the way.
    """

    base: type[optim.Optimizer] = optim.SGD
    options: dict[str, Any] = field(default_factory=dict)
    sizes: dict[int, Sequence[Sequence[int]]] = field(
        default_factory=lambda: {2: [[6, 6]], 4: [[3, 3, 3, 3]]}
    )
    closure: Callable[[Any], Callable[..., Any]] = plain
    wrap: str = "none"
    micro: int = 0
    seeded: bool = False
    bias: bool = True
    tolerance: float = 1e-12

    def optimizer(self, model: Any) -> F3EO:
        generator = torch.Generator() if self.seeded else None
        made = {k: v() if callable(v) else v for k, v in self.options.items()}
        usual = {"lr": 0.05, "strength": Ratio(0.5)}  # a structure term that counts
        return F3EO(model, self.base, generator=generator, **usual | made)

    def parts(self, step: int, world: int, batch: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """The batches of all processes."""
        table = self.sizes[world]
        sizes = list(table[min(step, len(table) - 1)])
        return list(zip(*(t.split(sizes) for t in batch), strict=True))


exact = lambda **k: lambda: PerSample(DoubleBackward(), **k)  # noqa: E731
UNEVEN = {2: [[9, 3], [5, 7], [11, 1]], 4: [[5, 4, 2, 1], [1, 1, 1, 9]]}
EMPTY = {2: [[6, 6], [12, 0], [0, 12], [7, 5]], 4: [[6, 0, 6, 0], [0, 0, 0, 12], [3, 3, 3, 3]]}
ADAMW, MUON = {"lr": 0.01}, {"lr": 0.02}

RUNS: dict[str, Run] = {
    "sgd": Run(options=WHOLE | {"estimator": exact()}),
    "sgd momentum": Run(options={"momentum": 0.9, **WHOLE, "estimator": exact()}),
    "adamw": Run(optim.AdamW, {**ADAMW, **WHOLE, "estimator": exact()}),
    "muon": Run(optim.Muon, {**MUON, **WHOLE, "estimator": exact()}, bias=False),
    # Forward differences err by about √u = 1.5e-8 by rounding alone.
    "differences": Run(options=WHOLE, tolerance=1e-7),
    "differences adamw": Run(optim.AdamW, ADAMW | WHOLE, tolerance=1e-7),
    "differences muon": Run(optim.Muon, MUON | WHOLE, bias=False, tolerance=1e-7),
    "central": Run(
        options=WHOLE | {"estimator": lambda: PerSample(FiniteDifference(central=True))},
        tolerance=1e-8,
    ),
    "by row": Run(options=WHOLE | {"estimator": exact(metric=ByRow(), hold_residuals=True)}),
    "elementwise": Run(options=WHOLE | {"estimator": exact(metric=Elementwise())}),
    "factored": Run(options=WHOLE | {"estimator": exact(metric=Factored(), power=2)}),
    "sampled": Run(
        closure=likelihood,
        options=WHOLE | {"estimator": lambda: ModelSampled(probes=None)},
    ),
    "sampled once": Run(
        closure=likelihood, seeded=True, options=WHOLE | {"estimator": ModelSampled}
    ),
    "signs": Run(seeded=True, options=WHOLE | {"estimator": Sign}),
    "uneven": Run(sizes=UNEVEN, options=WHOLE | {"estimator": exact()}),
    "empty": Run(sizes=EMPTY, options=WHOLE | {"estimator": exact()}),
    "empty every": Run(sizes=EMPTY, options={"every": 2, "fraction": 1, "estimator": exact()}),
    "weighted": Run(sizes=UNEVEN, closure=weighted, options=WHOLE | {"estimator": exact()}),
    "weightless": Run(sizes=UNEVEN, closure=weightless, options=WHOLE | {"estimator": exact()}),
    "every": Run(options={"every": 3, "fraction": 1, "estimator": exact()}),
    "default": Run(seeded=True, options={"every": 2, "strength": None}, tolerance=1e-7),
    "fitted": Run(options=WHOLE | {"estimator": exact(), "strength": lambda: Fitted(0.5)}),
    "fraction": Run(
        seeded=True, sizes=UNEVEN, options={"fraction": 0.5, "every": 2}, tolerance=1e-7
    ),
    "chunk": Run(options=WHOLE | {"chunk": 2, "estimator": exact()}),
    "max norm": Run(options=WHOLE | {"max_norm": 0.2, "estimator": exact()}),
    "accumulated": Run(micro=2, options=WHOLE | {"estimator": exact()}),
    "accumulated empty": Run(micro=2, sizes=EMPTY, options=WHOLE | {"estimator": exact()}),
    "wrapped before": Run(wrap="before", options=WHOLE | {"estimator": exact()}),
    "wrapped empty": Run(wrap="before", sizes=EMPTY, options=WHOLE | {"estimator": exact()}),
    "wrapped after": Run(wrap="after", options=WHOLE | {"estimator": exact()}),
    "wrapped module": Run(wrap="module", options=WHOLE | {"estimator": exact()}),
    "wrapped parameters": Run(wrap="parameters", options=WHOLE | {"estimator": exact()}),
    "no sync": Run(wrap="no_sync", micro=2, options=WHOLE | {"estimator": exact()}),
    "no strength": Run(wrap="before", options={"strength": Ratio(0)}),
    "rarely": Run(closure=rarely, sizes=UNEVEN, options=WHOLE | {"estimator": exact()}),
}


def train(run: Run, rank: int, world: int) -> dict[str, Any]:
    """What one of several processes ends with."""
    model = net(run.bias)
    called: Any = model
    if run.wrap in ("before", "module", "parameters", "no_sync"):
        called = DistributedDataParallel(model)
    handed = {"module": model, "parameters": list(model.parameters())}.get(run.wrap, called)
    optimizer = run.optimizer(handed)
    if run.wrap == "after":
        called = DistributedDataParallel(model)
    if optimizer.generator is not None:
        optimizer.generator.manual_seed(rank)
    closure, losses, moved = run.closure(called), [], []
    for step, batch in enumerate(data()):
        own = run.parts(step, world, batch)[rank]
        if run.micro:
            halves = zip(*(t.tensor_split(run.micro) for t in own), strict=True)
            for half in halves:
                if run.wrap == "no_sync":
                    with called.no_sync():
                        optimizer.accumulate(closure, *half)
                else:
                    optimizer.accumulate(closure, *half)
            losses.append(optimizer.step())
        else:
            losses.append(optimizer.step(closure, *own))
        moved.append(optimizer._reduction.bytes)  # pyright: ignore
    return outcome(model, optimizer, losses) | {"bytes": moved}


def alone(run: Run, world: int) -> dict[str, Any]:
    """What one process ends with on all of the batches."""
    model = net(run.bias)
    optimizer, closure, losses = run.optimizer(model), run.closure(model), []
    streams = [torch.Generator().manual_seed(rank).get_state() for rank in range(world)]
    for step, batch in enumerate(data()):
        if not run.seeded:
            losses.append(optimizer.step(closure, *batch))
            continue
        assert optimizer.generator is not None
        for rank, part in enumerate(run.parts(step, world, batch)):
            optimizer.generator.set_state(streams[rank])
            if len(part[0]):
                optimizer.accumulate(closure, *part)
            streams[rank] = optimizer.generator.get_state()
        losses.append(optimizer.step())
    return outcome(model, optimizer, losses)


def outcome(model: nn.Module, optimizer: F3EO, losses: Sequence[Tensor]) -> dict[str, Any]:
    own = {id(p): name for name, p in model.named_parameters()}
    state = optimizer.base.state_dict()["state"]
    return {
        "weights": flat(model.parameters()),
        "state": [t for entry in state.values() for t in entry.values()],
        "losses": torch.stack(list(losses)),
        "trace": optimizer.trace,
        "without": [own[id(p)] for p in model.parameters() if p.grad is None],
        "steps": optimizer.steps,
    }


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])
