"""What the tests of f3eo.continual share: a small network, and its gradients by loops."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from cases import WHOLE
from f3eo import F3EO, DoubleBackward, Fixed, PerSample
from f3eo.continual import Reservoir


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batch(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 3, (samples,), generator=generator)


def losses_of(model: nn.Module):
    """The closure: per-sample cross-entropies."""

    def losses(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    return losses


def exact(power: float = 2.0) -> PerSample:
    """An estimator that is exact to rounding."""
    return PerSample(DoubleBackward(), power=power)


def flat(tensors) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def samples_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∇ℓ_i of every sample by itself, (B, P), with a graph."""
    parameters, rows = list(model.parameters()), []
    for i in range(len(x)):
        loss = losses_of(model)(x[i : i + 1], y[i : i + 1]).sum()
        row = torch.autograd.grad(loss, parameters, create_graph=True)
        rows.append(torch.cat([g.flatten() for g in row]))
    return torch.stack(rows)


def both_gradients(model: nn.Module, x: Tensor, y: Tensor, power: float = 2.0):
    """g and h = (1/p) ∇ mean ‖∇ℓ_i‖^p, flat."""
    rows = samples_gradients(model, x, y)
    objective = rows.square().sum(1).pow(power / 2).mean() / power
    return rows.mean(0).detach(), flat(torch.autograd.grad(objective, list(model.parameters())))


NOW, THEN = batch(6, 1), batch(4, 2)


def filled(size: int = 4) -> Reservoir:
    memory = Reservoir(size)
    memory.add(*THEN)
    return memory


def recorded(optimizer: F3EO, *steps):
    """The records of steps with these (closure, batch)."""
    records = []
    optimizer.observe(lambda r: records.append(copy.deepcopy(r)))
    for closure, x, y in steps:
        optimizer.step(closure, x, y)
    return records


def optimizer_of(model, part, base=SGD, **options) -> F3EO:
    own = {"lr": 0.1, "estimator": exact(), "strength": Fixed(0.5)} | WHOLE
    return F3EO(model, base, past=part, **own | options)
