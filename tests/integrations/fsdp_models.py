"""Small models of every kind, how fully_shard takes them, and their data; all in float64."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """Attention with a packed projection and an MLP, each behind a norm."""

    def __init__(self, width, checkpointed=False):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection = nn.Linear(width, 3 * width, bias=False)  # keys: no gradient
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.checkpointed = checkpointed

    def attend(self, x):
        q, k, v = self.projection(self.before(x)).unflatten(-1, (3, 2, -1)).unbind(-3)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.between(x))))

    def forward(self, x):
        if self.checkpointed:
            return checkpoint(self.attend, x, use_reentrant=False)
        return self.attend(x)


class Transformer(nn.Module):
    """Tokens (B, T) to logits (B, T, V), the head tied to the embedding."""

    def __init__(self, checkpointed=False):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.positions = nn.Parameter(0.1 * torch.randn(5, 8))
        self.blocks = nn.ModuleList([Block(8, checkpointed), Block(8, checkpointed)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        x = self.embedding(x) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Computed(nn.Module):
    """Weights that are computed from parameters, and one that no rule covers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(7, 6) / 3)
        self.second = nn.Parameter(torch.randn(6, 4) / 3)

    def forward(self, x):
        x = torch.tanh(F.linear(x, F.normalize(self.first, dim=1)))
        return torch.einsum("bi,ij->bj", x[:, :6], self.second)


def mlp():
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))


def uneven():
    """Rows that no number of processes divides; some processes have none of a layer."""
    return nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def matrices():
    """For bases that train matrices alone."""
    parts = [nn.Linear(10, 16, bias=False), nn.Tanh(), nn.Linear(16, 4, bias=False)]
    return nn.Sequential(*parts)


def frozen():
    model = mlp()
    model[2].requires_grad_(False)
    return model


MODELS = {
    "mlp": mlp,
    "uneven": uneven,
    "convolutional": convolutional,
    "matrices": matrices,
    "frozen": frozen,
    "transformer": Transformer,
    "checkpointed": lambda: Transformer(checkpointed=True),
    "computed": Computed,
}
"""Makers of models."""


def model_of(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


def shard(model, mesh):
    """fully_shard on every layer or block with parameters, then on the whole."""
    from torch.distributed.fsdp import fully_shard

    parts = model.blocks if isinstance(model, Transformer) else model.children()
    for part in parts:
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh)
    return fully_shard(model, mesh=mesh)


SHAPES = {"convolutional": (2, 6, 6), "computed": (6,)}
CLASSES = {"uneven": 3}


def batches(name, count=5, samples=16):
    """Batches of all processes together: (inputs, labels) each."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        if name in ("transformer", "checkpointed"):
            tokens = torch.randint(11, (samples, 6), generator=generator)
            made.append((tokens[:, :-1], tokens[:, 1:]))
        else:
            shape = SHAPES.get(name, (10,))
            x = torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
            classes = CLASSES.get(name, 4)
            made.append((x, torch.randint(classes, (samples,), generator=generator)))
    return made


def losses(model):
    """The closure: cross-entropies (B,), or (B, T) of sequences."""

    def closure(x, y):
        outputs = model(x)
        if outputs.ndim == 3:
            outputs = outputs.transpose(1, 2)
        return F.cross_entropy(outputs, y, reduction="none")

    return closure


def full(parameter):
    whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return whole.detach()


def weights(model):
    return torch.cat([full(p).flatten() for p in model.parameters()])
