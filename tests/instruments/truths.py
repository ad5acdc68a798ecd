"""What the tests of instruments share: cases with weights, and their per-sample gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cases import Case, case
from dense import truth
from f3eo import Weighted

MODELS = ["mlp", "regression", "cnn", "attention", "tied", "sequence_first", "no_rules"]
MODELS += ["partly_frozen"]


@dataclass(frozen=True)
class Dense:
    """A case in two batches, one row a sample: its gradients (N, P), losses and weights."""

    case: Case
    closure: Callable[..., Any]
    data: list[tuple[Tensor, ...]]
    gradients: Tensor
    losses: Tensor
    weights: Tensor

    @property
    def model(self) -> nn.Module:
        return self.case.model

    @property
    def shares(self) -> Tensor:
        return self.weights / self.weights.sum()

    @property
    def slices(self) -> dict[str, slice]:
        """The columns of every trained parameter, by its name."""
        found, start = {}, 0
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                found[name] = slice(start, start + p.numel())
                start += p.numel()
        return found


def dense(name: str, *, weighted: bool = False) -> Dense:
    """A row of the table of models; with weights, one of them 0."""
    c = case(name)
    count = len(c.batch[0])
    weights = torch.ones(count, dtype=torch.float64)
    rows = (*c.batch, weights)
    if weighted:
        weights.copy_(torch.rand(count))
        weights[1] = 0.0

    def closure(x: Tensor, y: Tensor, w: Tensor) -> Any:
        losses = c.losses(x, y)
        return Weighted(losses.flatten(1).mean(1) if losses.ndim > 1 else losses, w)

    plain = truth(c.model, c.losses, *c.batch)
    data = [tuple(t[:3] for t in rows), tuple(t[3:] for t in rows)]
    if not weighted:
        data = [batch[:2] for batch in data]
    chosen = closure if weighted else c.losses
    return Dense(c, chosen, data, plain.gradients, plain.losses, weights)


def error(values: Tensor, weights: Tensor) -> Tensor:
    """The standard error of a weighted mean, sample by sample."""
    kept = [(float(v), float(w)) for v, w in zip(values, weights, strict=True) if w > 0]
    total = sum(w for _, w in kept)
    mean = sum(w * v for v, w in kept) / total
    squares = sum((w / total * (v - mean)) ** 2 for v, w in kept)
    return torch.tensor((len(kept) / (len(kept) - 1) * squares) ** 0.5, dtype=torch.float64)


def close(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    found, expected = (torch.as_tensor(v, dtype=torch.float64) for v in (found, expected))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-12)
