"""The Gram matrix of per-sample gradients, whose eigenvalues are those of the Fisher matrix."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher.ghost import Dense, Outer, Rows, Term
from f3eo.fisher.per_sample import PerSample
from f3eo.instruments.factors import MEMORY, combined, factors
from f3eo.instruments.passes import Data, problems

BLOCK = 2**24
"""Elements of a matrix that is made at a time."""


@dataclass(frozen=True)
class Gram:
    """K_rs = √(w_r w_s) ⟨x_r, x_s⟩ over all factors r = (batch, k, sample) of the data.

    M = (1/W) Σ_r w_r x_r x_rᵀ has the eigenvalues of K/W, and zeros.

    Args:
        matrix: K, (R, R), float64.
        weights: w_r, (R,), float64; 1 without weights.
        total: W, the sum of the weights of the samples.
        of: "fisher" or "gauss_newton".
        parameters: those of the model.
        cotangents: s of every batch, (K, B, …).
    """

    matrix: Tensor
    weights: Tensor
    total: float
    of: str
    parameters: list[Tensor]
    cotangents: list[Tensor]

    def combined(
        self, model: Any, closure: Closure, data: Data, coefficients: Tensor
    ) -> list[Tensor]:
        """Σ_r c_r √w_r x_r for every row c of (k, R); for each parameter a tensor (k, *shape).

        Args:
            model, closure, data: as the matrix was made of.
            coefficients: c, (k, R).
        """
        sums = [torch.zeros(len(coefficients), *p.shape).to(p).double() for p in self.parameters]
        parts = (coefficients * self.weights.sqrt()).split(
            [s.shape[0] * s.shape[1] for s in self.cotangents], 1
        )
        rows = zip(problems(model, closure, data), self.cotangents, parts, strict=True)
        for problem, cotangents, part in rows:
            for own, x in zip(sums, combined(problem, self.of, cotangents, part), strict=True):
                own += x
        return sums


def gram(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    *,
    of: str = "fisher",
    memory: int = MEMORY,
) -> Tensor:
    """Inner products of per-sample gradients, K_ij = ⟨∇ℓ_i, ∇ℓ_j⟩, exact.

    The eigenvalues of K/N are those of F̂ = (1/N) Σ_i ∇ℓ_i ∇ℓ_iᵀ, and zeros. With weights
    K_ij = √(w_i w_j) ⟨∇ℓ_i, ∇ℓ_j⟩, and W = Σ w_i stands for N. A layer whose gradients are outer
    products takes the elementwise product of two Gram matrices, or its rows in blocks, whichever is
    cheaper (`f3eo.fisher.ghost.gradients.terms`).

    Args:
        model: a module, or its parameters; those that require no gradient do not count. Measured
            in the mode that the model is in, which is left as it was.
        closure: called with the arguments of a batch; returns per-sample losses or a likelihood.
        data: batches, such as a DataLoader or `[(x, y)]`; N samples in all.
        of: "fisher", the default; or "gauss_newton", whose rows are x_ik = J_iᵀ s_ik with
            Σ_k s_ik s_ikᵀ = ∇²_f ℓ_i: for each batch k by k, the samples within (at most N·C rows
            for C outputs). K/N has the eigenvalues of G.
        memory: bytes that closed forms and gradients written out may take together; more is done
            in several sweeps, each for some of the parameters. Default 1 GiB.

    Returns:
        K, (N, N) or (R, R), float64; in nats² over the squared unit of the parameters.

    Raises:
        ValueError: coupled samples, an `of` that is neither, or one parameter's gradients that take
            more than `memory`; see `f3eo.instruments.passes` for data that does not fit.
        TypeError: "gauss_newton" of losses without a likelihood.
        FloatingPointError: gradients are not finite.
    """
    return gram_of(model, closure, data, of, memory).matrix


@torch.enable_grad()
def gram_of(
    model: nn.Module | Iterable[Tensor], closure: Closure, data: Data, of: str, memory: int
) -> Gram:
    """The Gram matrix with what eigenvectors are made from; see `gram`."""
    model = model if isinstance(model, nn.Module) else list(model)
    found = list(problems(model, closure, data))
    parameters, batches = found[0].parameters, [p.batch for p in found]
    waiting, recorder = [parameters], PerSample(memory=memory)
    matrix, weights, total, cotangents = None, torch.zeros(0), 0.0, list[Tensor]()
    while waiting:
        block = waiting.pop()
        held = _held(problems(model, closure, batches), block, of, recorder)
        if held is None:
            if len(block) < 2:
                raise ValueError(
                    f"the per-sample gradients of {found[0].name(block[0])} take more than "
                    f"memory={memory} bytes: use more memory, fewer samples or method='lanczos'"
                )
            half = len(block) // 2
            waiting += [block[half:], block[:half]]
            continue
        terms, weights, total, cotangents = held
        rows = len(weights)
        matrix = weights.new_zeros(rows, rows) if matrix is None else matrix
        for p in block:
            _add_products(matrix, terms[id(p)])
    assert matrix is not None
    roots = weights.sqrt()
    matrix *= roots * roots.unsqueeze(1)
    return Gram(matrix, weights, total, of, parameters, cotangents)


_Held = tuple[dict[int, list[Term]], Tensor, float, list[Tensor]]


def _held(sweep: Iterator[Any], block: list[Tensor], of: str, recorder: PerSample) -> _Held | None:
    """Terms of every parameter, weights, their total and cotangents; None if too large."""
    terms: dict[int, list[Term]] = {id(p): [] for p in block}
    weights, cotangents, total = list[Tensor](), list[Tensor](), 0.0
    memory = recorder.memory
    for problem in sweep:
        found = factors(problem, of, recorder, _smaller, terms.keys())
        if found is None:
            return None
        for part in found.terms:
            for p in block:
                terms[id(p)].append(part.get(id(p)) or _none(p, len(found.weights)))
            memory -= sum(map(_bytes, part.values()))
            if memory < 0:
                return None
            weights.append(found.weights)
        cotangents.append(found.cotangents)
        total += float(found.weights.sum())
    return terms, torch.cat(weights), total, cotangents


def _none(parameter: Tensor, samples: int) -> Dense:
    """Gradients of zero."""
    return Dense(parameter.detach().new_zeros(()).expand(samples, *parameter.shape))


def _smaller(parameter: Tensor, term: Term) -> bool:
    """Whether a closed form takes less memory than the gradients written out."""
    samples = next(len(t) for t in vars(term).values() if isinstance(t, Tensor))
    return _bytes(term) <= samples * parameter.numel() * parameter.element_size()


def _bytes(term: Term) -> int:
    return sum(t.numel() * t.element_size() for t in vars(term).values() if isinstance(t, Tensor))


def _add_products(matrix: Tensor, terms: Sequence[Term]) -> None:
    """matrix += ⟨G_r, G_s⟩ over all rows of the terms."""
    if all(isinstance(t, Outer) for t in terms):
        left, right = _sides([t.left for t in terms]), _sides([t.right for t in terms])  # pyright: ignore
        if left is not None and right is not None:
            positions, m, n = left.shape[1], left.shape[2], right.shape[2]
            if positions**2 * (m + n) <= m * n:
                _add_hadamard(matrix, left, right)
            else:
                _add_outer_blocks(matrix, left, right)
            return
    if all(isinstance(t, Rows) for t in terms):
        values, index = _sides([t.values for t in terms]), [t.index for t in terms]  # pyright: ignore
        if values is not None:
            _add_rows(matrix, torch.cat(index), values)
            return
    written = [t.values if isinstance(t, Dense) else t.rows(slice(None)) for t in terms]
    flat = torch.cat([w.flatten(1) if w.ndim > 1 else w.unsqueeze(1) for w in written])
    step = max(1, BLOCK // len(flat))
    for start in range(0, flat.shape[1], step):
        block = flat[:, start : start + step].double()
        matrix.addmm_(block, block.mT)


def _sides(parts: Sequence[Tensor]) -> Tensor | None:
    """One tensor (R, T, m) in float64; None where the batches differ in T."""
    if len({p.shape[1:] for p in parts}) > 1:
        return None
    return torch.cat([p.double() for p in parts])


def _add_hadamard(matrix: Tensor, left: Tensor, right: Tensor) -> None:
    """⟨Σ_t l_rt r_rtᵀ, Σ_u l_su r_suᵀ⟩ = Σ_tu (l_rt·l_su)(r_rt·r_su)."""
    rows, positions = left.shape[:2]
    every_left, every_right = left.flatten(0, 1), right.flatten(0, 1)
    step = max(1, BLOCK // (rows * positions**2))
    for i in range(0, rows, step):
        a, b = left[i : i + step].flatten(0, 1), right[i : i + step].flatten(0, 1)
        products = (a @ every_left.mT) * (b @ every_right.mT)
        matrix[i : i + step] += products.view(-1, positions, rows, positions).sum((1, 3))


def _add_outer_blocks(matrix: Tensor, left: Tensor, right: Tensor) -> None:
    """The gradients written out, some rows of the parameter at a time."""
    step = max(1, BLOCK // (len(left) * right.shape[2]))
    for start in range(0, left.shape[2], step):
        block = (left[:, :, start : start + step].mT @ right).flatten(1)
        matrix.addmm_(block, block.mT)


def _add_rows(matrix: Tensor, index: Tensor, values: Tensor) -> None:
    """⟨Σ_t e(k_rt) v_rtᵀ, Σ_u e(k_su) v_suᵀ⟩ = Σ_tu [k_rt = k_su] (v_rt·v_su)."""
    rows, positions = index.shape
    every_index, every_value = index.flatten(), values.flatten(0, 1)
    step = max(1, BLOCK // (rows * positions**2))
    for i in range(0, rows, step):
        same = index[i : i + step].reshape(-1, 1) == every_index
        products = (values[i : i + step].flatten(0, 1) @ every_value.mT) * same
        matrix[i : i + step] += products.view(-1, positions, rows, positions).sum((1, 3))
