"""Trajectories of optimizers × estimators × rules on three models, to the bit.

Record them before a change that must not change any number, compare after it:

    python tests/golden.py record FILE
    python tests/golden.py compare FILE

Bits depend on processor and build of torch: both runs belong on one machine.
"""

import hashlib
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, RMSprop

from f3eo import (
    F3EO,
    Cap,
    Categorical,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fitted,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
    Warmup,
)
from f3eo.extend import DecoupledPerTensor, Direct
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG

STEPS = 7


class Attention(nn.Module):
    """Embedding, position table, one block, tied output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.positions = nn.Parameter(0.1 * torch.randn(5, 8))
        self.norm = nn.LayerNorm(8)
        self.mixing = nn.MultiheadAttention(8, 2, batch_first=True)
        self.rest = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, T, 11)."""
        z = self.embedding(x) + self.positions
        n = self.norm(z)
        z = z + self.mixing(n, n, n, need_weights=False)[0]
        return (z + self.rest(z)) @ self.embedding.weight.T


def mlp() -> tuple[nn.Module, Tensor, Tensor]:
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))
    return net, torch.randn(16, 6), torch.randint(0, 3, (16,))


def convolutions() -> tuple[nn.Module, Tensor, Tensor]:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(54, 3),
    )
    return net, torch.randn(12, 1, 8, 8), torch.randint(0, 3, (12,))


def attention() -> tuple[nn.Module, Tensor, Tensor]:
    return Attention(), torch.randint(0, 11, (8, 5)), torch.randint(0, 11, (8, 5))


MODELS = {"mlp": mlp, "convolutions": convolutions, "attention": attention}
BASES: dict[str, Callable[..., Any]] = {
    "sgd": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: AdamW(p, lr=3e-3),
    "rmsprop": lambda p: RMSprop(p, lr=1e-3),
    "muon": lambda p: Muon([q for q in p if q.ndim == 2], lr=1e-2),
}
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "per-sample": PerSample,
    "per-sample central": lambda: PerSample(FiniteDifference(central=True), power=1.5),
    "per-sample exact": lambda: PerSample(DoubleBackward(), power=2),
    "per-sample little memory": lambda: PerSample(DoubleBackward(), memory=2000),
    "mini-batch": MiniBatch,
    "mini-batch differences": lambda: MiniBatch(FiniteDifference()),
    "signs": Sign,
    "signs balanced": lambda: Sign(FiniteDifference(central=True), balanced=True),
    "sampled": ModelSampled,
    "compiled": lambda: Compiled(backend=None),
}
RULES = {
    "decoupled": Decoupled,
    "per tensor": DecoupledPerTensor,
    "coupled": Coupled,
    "direct": Direct,
}
STRENGTHS = [
    lambda: Fitted(0.04),
    lambda: Cap(0.1, schedule=Warmup(3)),
    lambda: Ratio(0.3),
    lambda: Fixed(0.02),
]
OPTIONS: list[dict[str, Any]] = [{}, {"fraction": 1.0, "every": 1}, {"every": 2, "max_norm": 0.5}]
DTYPES = [torch.float32, torch.float64]


def trained(steps: int, optimizer: Any, step: Callable[[int], Tensor]) -> Iterator[Any]:
    for k in range(steps):
        yield float(step(k)).hex()
        trace = getattr(optimizer, "trace", None)
        yield None if trace is None else float(trace).hex()


def digest(model: nn.Module, course: list[Any]) -> str:
    found = hashlib.sha256(repr(course).encode())
    for p in model.parameters():
        found.update(p.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def first_order(name: str, k: int, base: str, estimator: str, rule: str) -> tuple[str, str]:
    options = OPTIONS[k % len(OPTIONS)]
    if estimator.startswith("mini") and "fraction" in options:
        options = {"every": 1}
    torch.manual_seed(k)
    model, x, y = MODELS[name]()
    dtype = DTYPES[(k // 3) % 2]
    model.to(dtype)
    x = x.to(dtype) if x.is_floating_point() else x
    opt = F3EO(
        [p for p in model.parameters() if p.requires_grad and (base != "muon" or p.ndim == 2)]
        if k % 5 == 0
        else model,
        BASES[base](model.parameters()) if base == "muon" or k % 5 == 0 else BASES[base],
        estimator=ESTIMATORS[estimator](),
        rule=RULES[rule](),
        strength=STRENGTHS[k % len(STRENGTHS)](),
        generator=torch.Generator().manual_seed(k),
        **options,
    )

    def losses(x: Tensor, y: Tensor) -> Any:
        z = model(x)
        if estimator == "sampled":
            return Categorical(z, y, per_token=k % 2 == 0)
        return F.cross_entropy(z.movedim(-1, 1), y, reduction="none")

    def step(number: int) -> Tensor:
        if k % 4 == 1 and not estimator.startswith("mini"):
            half = len(x) // 2
            opt.accumulate(losses, x[:half], y[:half])
            opt.accumulate(losses, x[half:], y[half:])
            return opt.step()
        return opt.step(losses, x, y)

    course = list(trained(STEPS, opt, step))
    return f"{name}, {base}, {estimator}, {rule}", digest(model, course)


def second_order(name: str, k: int, kind: type) -> tuple[str, str]:
    torch.manual_seed(k)
    model, x, y = MODELS[name]()
    model.double().eval()
    x = x.double() if x.is_floating_point() else x
    opt = kind(model)
    course = list(trained(4, opt, lambda _: opt.step(lambda x, y: Categorical(model(x), y), x, y)))
    return f"{name}, {kind.__name__}", digest(model, course)


def all_cases() -> Iterator[tuple[str, str]]:
    rows = itertools.product(MODELS, BASES, ESTIMATORS, RULES)
    for k, row in enumerate(rows):
        yield first_order(row[0], k, *row[1:])
    kinds = (NewtonCG, GaussNewton, LayerwiseGaussNewton)
    for k, (name, kind) in enumerate(itertools.product(MODELS, kinds)):
        yield second_order(name, k, kind)


def main(command: str, file: str) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = dict(all_cases())
    if command == "record":
        Path(file).write_text(json.dumps(found, indent=0))
        print(f"{len(found)} trajectories recorded")
        return 0
    known = json.loads(Path(file).read_text())
    changed = sorted(k for k in known.keys() | found.keys() if known.get(k) != found.get(k))
    print(f"{len(found)} trajectories, {len(changed)} differ", *changed[:20], sep="\n  ")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
