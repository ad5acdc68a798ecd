"""Addition modulo 113, learned from a part of its table (arXiv 2201.02177, 2301.05217).

The network first memorises the training pairs. Much later, under weight decay, it generalises:
the test accuracy rises late and steeply ("grokking").
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from f3eo.bench.tasks.task import Data, Samples, Task

P = 113
TRAIN = 0.3
WIDTH, HEADS = 64, 4


def load() -> Data:
    """All pairs (a, b) with the label (a + b) mod 113: 30 % to train on, 70 % to test."""
    numbers = torch.arange(P)
    x = torch.cartesian_prod(numbers, numbers)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x = x[order]
    y = x.sum(1) % P
    cut = int(TRAIN * len(x))
    return Data(Samples(x[:cut], y[:cut]), Samples(x[cut:], y[cut:]))


class Transformer(nn.Module):
    """One layer without normalisation, as in arXiv 2301.05217; the last position predicts.

    Queries of other positions are left out, since no output depends on them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Embedding(P, WIDTH)
        self.positions = nn.Parameter(torch.randn(2, WIDTH) / WIDTH**0.5)
        nn.init.normal_(self.numbers.weight, std=WIDTH**-0.5)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.head = nn.Linear(WIDTH, P, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map pairs (B, 2) to logits (B, P)."""
        x = self.numbers(x) + self.positions
        last = x[:, -1:]
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query(last), self.key(x), self.value(x))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        last = last + self.out(mixed)
        last = last + self.mlp(last)
        return self.head(last).squeeze(1)


TASK = Task(
    name="modular-addition",
    description="addition modulo 113, 3,830 pairs to train on and 8,939 to test; "
    "one-layer transformer of width 64; Adam's weight decay searched from 0.2 to 2",
    load=load,
    model=Transformer,
    batch=256,
    budget=3_000,
    base="adamw",
    decay=(0.2, 2.0),
    target=0.99,
    probe=256,
    curve_test=2_000,
)
"""Weight decay is near 1, as in both papers; without it no run generalises at this budget."""

TASKS = (TASK,)
