"""Eigenvalues of an operator: exact by a Gram or a dense matrix, else by Lanczos quadrature."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Generator, Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.curvature.vectors import unflatten
from f3eo.instruments.density import Density, exact_density
from f3eo.instruments.factors import MEMORY
from f3eo.instruments.gram_matrix import gram_of
from f3eo.instruments.lanczos import lanczos
from f3eo.instruments.operator import Operator
from f3eo.instruments.passes import problems

EXACT = 2048
"""Rows of a matrix whose eigenvalues are computed where the method is "auto"."""

METHODS = ("auto", "gram", "dense", "lanczos")


@dataclass(frozen=True)
class Spectrum(Density):
    """The spectrum of a P×P matrix of the mean loss; see `Density` for nodes and weights.

    Args:
        of: "fisher", "gauss_newton" or "hessian".
        method: "gram", "dense" or "lanczos", which gave it.
        samples: the sum of the weights of the samples; N without weights.
        top: the largest eigenvalues, descending, (k,), float64. By Lanczos they are Ritz values,
            and an eigenvalue that is there several times is shown once.
        vectors: for each of them the unit eigenvector, a tensor in the shape of every parameter.
        residuals: ‖M v − λ v‖ of each; M has an eigenvalue as near as that. 0 where exact.
    """

    of: str
    method: str
    samples: float
    top: Tensor
    vectors: list[list[Tensor]]
    residuals: Tensor

    @property
    def values(self) -> Tensor:
        """All eigenvalues other than exact zeros, descending; float64.

        Raises:
            ValueError: they are not known: the spectrum is a quadrature.
        """
        if not self.exact:
            raise ValueError(
                "a quadrature by Lanczos has nodes and weights, not the eigenvalues: use "
                "method='gram' or 'dense' for these, or .top for the largest"
            )
        return self.nodes[0, :-1].sort(descending=True).values


@torch.enable_grad()
def spectrum_of(
    operator: Operator,
    *,
    method: str = "auto",
    top: int = 10,
    steps: int = 64,
    probes: int = 8,
    memory: int = MEMORY,
    generator: Generator | None = None,
) -> Spectrum:
    """The spectrum of an operator; see `spectrum`."""
    for name, value, lowest in (("top", top, 0), ("steps", steps, 1), ("probes", probes, 1)):
        if not (isinstance(value, int) and value >= lowest):
            raise ValueError(f"{name} is an integer >= {lowest}, received {value!r}")
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(map(repr, METHODS))}, received {method!r}")
    samples, rows = _counted(operator)
    if method == "auto":
        method = "lanczos"
        if min(rows, operator.size) <= EXACT:
            method = "gram" if rows <= operator.size else "dense"
    if method == "gram":
        return _by_gram(operator, top, memory)
    if method == "dense":
        return _by_dense(operator, samples, top)
    return _by_lanczos(operator, samples, top, steps, probes, generator)


def _counted(operator: Operator) -> tuple[float, float]:
    """The sum of the weights of the samples, and the rows of the Gram matrix at most."""
    samples, rows = 0.0, inf if operator.of == "hessian" else 0.0
    for problem in problems(operator.model, operator.closure, operator.batches):
        output = evaluate(problem, per_sample=True, differentiable=False, enable_grad=False)
        samples += float(output.shares.total)
        # Of losses without a likelihood, which Gauss-Newton refuses later, the losses.
        curved = operator.of == "gauss_newton" and output.likelihood is not None
        rows += (output.likelihood.parameters if curved else output.losses).numel()  # pyright: ignore
    return samples, rows


def _by_gram(operator: Operator, top: int, memory: int) -> Spectrum:
    parts = operator.model, operator.closure, operator.batches
    found = gram_of(*parts, operator.of, memory)
    values, vectors = torch.linalg.eigh(found.matrix / found.total)
    rank = min(len(values), operator.size)
    values, vectors = values[-rank:].clamp(min=0), vectors[:, -rank:]
    unit = len(values) * torch.finfo(torch.float64).eps
    index = values.argsort(descending=True)[:top]
    index = index[values[index] > unit * values.max()]
    pairs: list[list[Tensor]] = []
    if len(index):
        sums = found.combined(*parts, vectors[:, index].mT)
        norms = torch.stack([s.flatten(1).square().sum(1) for s in sums]).sum(0).sqrt()
        for k, norm in enumerate(norms):
            own = zip(sums, operator.parameters, strict=True)
            pairs.append([(s[k] / norm).to(p) for s, p in own])
    density = exact_density(values, operator.size)
    chosen = values[index]
    return Spectrum(
        **vars(density),
        of=operator.of,
        method="gram",
        samples=found.total,
        top=chosen,
        vectors=pairs,
        residuals=torch.zeros_like(chosen),
    )


def _by_dense(operator: Operator, samples: float, top: int) -> Spectrum:
    values, vectors = torch.linalg.eigh(operator.dense())
    if operator.of != "hessian":
        values = values.clamp(min=0)  # below zero by rounding alone
    index = values.argsort(descending=True)[:top]
    chosen = values[index]
    return Spectrum(
        **vars(exact_density(values, operator.size)),
        of=operator.of,
        method="dense",
        samples=samples,
        top=chosen,
        vectors=[unflatten(vectors[:, i], operator.parameters) for i in index],
        residuals=torch.zeros_like(chosen),
    )


def _by_lanczos(
    operator: Operator,
    samples: float,
    top: int,
    steps: int,
    probes: int,
    generator: Generator | None,
) -> Spectrum:
    like, size = operator.like, operator.size
    device = like.device if generator is None else generator.device
    # Drawn before the first product, so that all products meet the same dropout masks.
    signs = torch.randint(0, 2, (probes, size), generator=generator, device=device).bool()
    nodes, weights = list[Tensor](), list[Tensor]()
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for row in signs:
        start = torch.where(row.to(like.device), like.new_ones(()), -like.new_ones(()))
        space = lanczos(lambda v: operator.products(v.unsqueeze(0))[0], start, steps)
        nodes.append(space.nodes)
        weights.append(size * space.weights())
        index = space.nodes.argsort(descending=True)[:top]
        residuals = space.residuals()[index]
        if best is None or float(residuals.sum()) < float(best[1].sum()):
            best = space.nodes[index], residuals, space.ritz(index)
    assert best is not None
    length = max(map(len, nodes))
    filled = [torch.nn.functional.pad(x, (0, length - len(x))) for x in (*nodes, *weights)]
    return Spectrum(
        nodes=torch.stack(filled[:probes]),
        weights=torch.stack(filled[probes:]),
        size=size,
        exact=False,
        of=operator.of,
        method="lanczos",
        samples=samples,
        top=best[0],
        vectors=[unflatten(v, operator.parameters) for v in best[2]],
        residuals=best[1],
    )
