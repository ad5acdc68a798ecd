"""Dense matrices of a case, and its batch as data of several batches; shared by these tests."""

from typing import Any

import torch
from torch import Tensor

import dense
from cases import Case
from second_order.helpers import dense_gauss_newton, dense_hessian, trained


def parts(row: Case) -> list[tuple[Tensor, ...]]:
    """The batch in two of different sizes."""
    return [tuple(t[:2] for t in row.batch), tuple(t[2:] for t in row.batch)]


def gradients(row: Case) -> Tensor:
    """∇ℓ_i one by one, (B, P)."""
    return dense.truth(trained(row.model), row.losses, *row.batch).gradients


def matrix(row: Case, of: str) -> Tensor:
    """M of the whole batch, dense."""
    if of == "fisher":
        rows = gradients(row)
        return rows.mT @ rows / len(rows)
    return dense_gauss_newton(row) if of == "gauss_newton" else dense_hessian(row)


def flat(vector: list[Tensor]) -> Tensor:
    """A vector in the shapes of the parameters, in a row."""
    return torch.cat([v.reshape(-1) for v in vector])


def seeded(seed: int = 0) -> Any:
    """A generator."""
    return torch.Generator().manual_seed(seed)
