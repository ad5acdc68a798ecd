"""Shared by the tests of second-order optimizers: table of optimizers, dense matrices."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import dense
from cases import Case, case
from f3eo import Categorical
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG, SecondOrder

OPTIMIZERS: dict[str, type[SecondOrder]] = {
    "newton": NewtonCG,
    "gauss-newton": GaussNewton,
    "layerwise": LayerwiseGaussNewton,
}
EXACT: dict[str, Any] = {"tolerance": 1e-13, "max_iterations": 1500}


def trained(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def weights(model: nn.Module) -> Tensor:
    """All trained parameters in a row, a copy."""
    return dense.flat(trained(model)).detach().clone()


def dense_gradient(case: Case) -> Tensor:
    """∇L, (P,)."""
    with sdpa_kernel(SDPBackend.MATH):
        loss = case.losses(*case.batch).mean()
    found = torch.autograd.grad(loss, trained(case.model), allow_unused=True)
    pairs = zip(found, trained(case.model), strict=True)
    return dense.flat([torch.zeros_like(p) if g is None else g for g, p in pairs])


def dense_hessian(case: Case, closure: Callable[..., Tensor] | None = None) -> Tensor:
    """∇²L, (P, P)."""
    with sdpa_kernel(SDPBackend.MATH), dense.Differentiable():
        return dense.hessian(trained(case.model), (closure or case.losses)(*case.batch).mean())


def dense_jacobian(case: Case) -> Tensor:
    """∂f/∂θ, (B, entries of one sample's f, P)."""
    parameters = trained(case.model)
    with sdpa_kernel(SDPBackend.MATH):
        f = case.model(case.batch[0])
    rows = [
        dense.flat(torch.autograd.grad(entry, parameters, **dense._graph)).detach()
        for entry in f.reshape(-1)
    ]
    return torch.stack(rows).view(len(f), -1, len(rows[0]))


def dense_output_hessian(case: Case) -> Tensor:
    """∇²_f ℓ_i by formula, (B, entries of f, entries of f)."""
    f = case.model(case.batch[0]).detach()
    if case.likelihood is not Categorical:
        eye = torch.eye(f[0].numel(), dtype=f.dtype) / f[0].numel()
        return eye.expand(len(f), -1, -1)
    p = f.softmax(-1).reshape(len(f), -1, f.shape[-1])
    blocks = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    return torch.stack([torch.block_diag(*own) / len(own) for own in blocks])


def dense_gauss_newton(case: Case) -> Tensor:
    """G = (1/B) Σ_i J_iᵀ (∇²_f ℓ_i) J_i, (P, P)."""
    j = dense_jacobian(case)
    return torch.einsum("bfp,bfg,bgq->pq", j, dense_output_hessian(case), j) / len(j)


def layer_mask(model: nn.Module) -> Tensor:
    """(P, P), True where row and column belong to the same module."""
    owner: dict[int, int] = {}
    for number, module in enumerate(model.modules()):
        for p in module.parameters(recurse=False):
            owner.setdefault(id(p), number)
    row = torch.cat([torch.full((p.numel(),), owner[id(p)]) for p in trained(model)])
    return row[:, None] == row[None, :]


class Point(nn.Module):
    """A point θ as a model, for losses that are functions of θ."""

    def __init__(self, place: Any) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.as_tensor(place, dtype=torch.float64))


def made(name: str = "newton", **options: Any) -> tuple[Case, SecondOrder]:
    """The MLP of the table of models and an optimizer of it."""
    row = case("mlp")
    return row, OPTIMIZERS[name](row.model, **options)


def bits(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, copies."""
    return [(k, v.detach().clone()) for k, v in model.state_dict().items()]


def same(one: list[tuple[str, Tensor]], two: list[tuple[str, Tensor]]) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True))
