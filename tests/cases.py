"""The table of models: small, float64, one row each; every test of an estimator runs over it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from f3eo import Categorical, Gaussian

WHOLE = {"fraction": 1, "every": 1}
"""h from the whole batch at every step, which a formula can be written down for."""


@dataclass(frozen=True)
class Case:
    """A model, a batch, and its loss as per-sample losses and as a likelihood."""

    model: nn.Module
    batch: tuple[Tensor, ...]
    likelihood: Callable[[Tensor, Tensor], Any] = Categorical

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The closure that returns losses, in torch's own functions."""
        z = self.model(x)
        if self.likelihood is Categorical:
            return F.cross_entropy(z.movedim(-1, 1), y, reduction="none")
        return 0.5 * (z - y).square() + 0.5 * torch.log(torch.tensor(2 * torch.pi))

    def drawn(self, x: Tensor, y: Tensor) -> Any:
        """The closure that returns the likelihood."""
        return self.likelihood(self.model(x), y)


class Attention(nn.Module):
    """A decoder block with class token, position table, layer scale and (optionally) tied "
    "weights."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8, padding_idx=3)
        self.places = nn.Embedding(6, 8)
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        self.scale = nn.Parameter(torch.rand(8))
        self.norm = nn.LayerNorm(8)
        self.pack = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, index: Tensor) -> Tensor:
        b, t = index.shape
        x = torch.cat([self.start.expand(b, -1, -1), self.tokens(index)], 1)
        x = x + self.places(torch.arange(t + 1))
        q, k, v = self.pack(self.norm(x)).view(b, t + 1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.scale * self.out(a.transpose(1, 2).reshape(b, t + 1, 8))
        # Folded to (B·T, d) and back, the norm used a second time.
        x = self.norm(x.reshape(b * (t + 1), 8)).view(b, t + 1, 8)
        return self.head(x)[:, 1:]


class SequenceFirst(nn.Module):
    """(T, B, d) inside, a layer used twice, an in-place sum with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.places = nn.Parameter(torch.randn(4, 1, 5))
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x.transpose(0, 1))
        z += self.places
        z = self.layer(torch.tanh(self.norm(z)))
        return self.head(z).mean(0)


def mlp() -> Case:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.SiLU(), nn.Linear(6, 3))
    return Case(model, _classes(6, (5,), 3))


def regression() -> Case:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    return Case(model, (torch.randn(6, 5), torch.randn(6, 2)), Gaussian)


def cnn() -> Case:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.SiLU(),
        nn.Conv2d(4, 6, 3, padding="same", groups=2, padding_mode="circular"),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 2, dilation=1),  # one position: the Gram form
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return Case(model, _classes(5, (2, 8, 8), 3))


def cnn_1d() -> Case:
    model = nn.Sequential(
        nn.Conv1d(2, 4, 5, stride=2, dilation=2, padding=3),
        nn.Tanh(),
        nn.Conv1d(4, 4, 3, groups=4, bias=False),
        nn.Flatten(),
        nn.Linear(20, 3),
    )
    return Case(model, _classes(5, (2, 16), 3))


def attention() -> Case:
    return Case(Attention(), _tokens())


def tied() -> Case:
    return Case(Attention(tied=True), _tokens())


def sequence_first() -> Case:
    return Case(SequenceFirst(), _classes(4, (4, 5), 3))


def no_rules() -> Case:
    """Bilinear, PReLU, weight norm, a learned temperature: nothing here has a rule of its own."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normed = weight_norm(nn.Linear(5, 6))
            self.slope = nn.PReLU(6)
            self.mix = nn.Bilinear(6, 5, 3)
            self.temperature = nn.Parameter(torch.tensor(0.7))

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(self.slope(self.normed(x)), x) * self.temperature

    return Case(Model(), _classes(6, (5,), 3))


def partly_frozen() -> Case:
    case = mlp()
    for p in case.model[2].parameters():  # pyright: ignore
        p.requires_grad_(False)
    return case


MODELS: dict[str, Callable[[], Case]] = {
    f.__name__: f
    for f in (
        mlp,
        regression,
        cnn,
        cnn_1d,
        attention,
        tied,
        sequence_first,
        no_rules,
        partly_frozen,
    )
}


def case(name: str, seed: int = 0) -> Case:
    """A row of the table with weights and data drawn from a seed, in float64."""
    default = torch.get_default_dtype()
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    try:
        return MODELS[name]()
    finally:
        torch.set_default_dtype(default)


def _classes(count: int, shape: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *shape), torch.randint(classes, (count,))


def _tokens() -> tuple[Tensor, Tensor]:
    index = torch.randint(11, (5, 5))  # as many samples as positions, on purpose
    return index, index.roll(-1, 1)
