"""F̂, G and H of all data as matrix-vector products; no matrix is formed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Closure
from f3eo.curvature.empirical_fisher import empirical_fisher
from f3eo.curvature.gauss_newton import gauss_newton
from f3eo.curvature.hessian import hessian
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import flatten, unflatten
from f3eo.instruments.passes import Data, problems

CHUNK = 64
"""Columns of a dense matrix that one sweep over the data gives."""


def _whole_gauss_newton(output: Output, parameters: Sequence[Tensor]) -> Quadratic:
    (model,) = gauss_newton(output, parameters, [range(len(parameters))])
    return model


MATRICES: Mapping[str, Callable[[Output, Sequence[Tensor]], Quadratic]] = MappingProxyType(
    {"fisher": empirical_fisher, "gauss_newton": _whole_gauss_newton, "hessian": hessian}
)
"""The matrices by the name that `of` takes."""


class Operator:
    """v ↦ M v for a symmetric P×P matrix M of the mean loss over all data.

    With W_b the sum of the weights of batch b (its number of samples without weights),

        M = Σ_b W_b M_b / Σ_b W_b

    and M_b one of

        "fisher"        F̂ = Σ_i ω_i ∇ℓ_i ∇ℓ_iᵀ           (`f3eo.curvature.empirical_fisher`)
        "gauss_newton"  G = Σ_i ω_i J_iᵀ (∇²_f ℓ_i) J_i    (`f3eo.curvature.gauss_newton`)
        "hessian"       H = ∇²L                            (`f3eo.curvature.hessian`)

    A product runs a forward pass over every batch; the graph of a batch is freed before the next.
    The batches are kept, and every product meets the same ones, with the same dropout masks as
    long as the global random state is the same. Measured in the mode that the model is in, which
    is left as it was. Sums over batches are in float64.

    Args:
        model: a module, or its parameters; those that require no gradient do not count.
        closure: called with the arguments of a batch; returns per-sample losses or a likelihood,
            a likelihood for "gauss_newton".
        data: batches, such as a DataLoader or `[(x, y)]`.
        of: "fisher", "gauss_newton" or "hessian".

    Raises:
        ValueError: an unknown `of`, and what `f3eo.instruments.passes` refuses.
        TypeError: in a product, losses without a likelihood for "gauss_newton".

    Source: Pearlmutter 1994; Schraudolph 2002.
    """

    def __init__(
        self, model: nn.Module | Iterable[Tensor], closure: Closure, data: Data, of: str = "fisher"
    ) -> None:
        if of not in MATRICES:
            raise ValueError(f"of is one of {', '.join(map(repr, MATRICES))}, received {of!r}")
        self.of = of
        self.model = model if isinstance(model, nn.Module) else list(model)
        self.closure = closure
        found = list(problems(self.model, closure, data))
        self.parameters = found[0].parameters
        self.batches = [problem.batch for problem in found]

    @property
    def size(self) -> int:
        """P, the number of entries of all parameters."""
        return sum(p.numel() for p in self.parameters)

    @property
    def like(self) -> Tensor:
        """An empty tensor with the device and the dtype of flat vectors, float32 or wider."""
        return flatten([p[:0] if p.ndim else p.reshape(1)[:0] for p in self.parameters])

    def product(self, vector: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """M v, in the form of v.

        Args:
            vector: v, flat (P,), or a tensor in the shape of every parameter.
        """
        if isinstance(vector, Tensor):
            return self.products(vector.unsqueeze(0))[0]
        return unflatten(self.products(flatten(vector).unsqueeze(0))[0], self.parameters)

    @torch.enable_grad()
    def products(self, vectors: Tensor) -> Tensor:
        """M v for each row v of (k, P), in one sweep over the data; (k, P), in their dtype.

        Raises:
            ValueError: the rows do not have P entries.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.size:
            raise ValueError(
                f"a vector for this operator has {self.size} entries, one for each entry of the "
                f"parameters, received {tuple(vectors.shape[1:])}"
            )
        total, weight = torch.zeros_like(vectors, dtype=torch.float64), 0.0
        build = MATRICES[self.of]
        for problem in problems(self.model, self.closure, self.batches):
            output = evaluate(problem, per_sample=True, differentiable=True)
            matrix = build(output, self.parameters)
            share = float(output.shares.total)
            for row, v in zip(total, vectors, strict=True):
                row.add_(matrix.product(v), alpha=share)
            weight += share
            del output, matrix  # frees the graph before the next one is built
        return (total / weight).to(vectors)

    def dense(self) -> Tensor:
        """M itself, (P, P), float64, made symmetric; P products."""
        rows = []
        for start in range(0, self.size, CHUNK):
            unit = self.like.new_zeros(min(CHUNK, self.size - start), self.size)
            unit.diagonal(start).fill_(1)
            rows.append(self.products(unit).double())
        matrix = torch.cat(rows)
        return (matrix + matrix.mT) / 2
