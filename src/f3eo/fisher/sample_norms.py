"""Squared norms of per-sample gradients by sample and parameter, as a measurement keeps them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f3eo.closure.output import Shares


@dataclass(frozen=True)
class Block:
    """Norms of samples that went through the model at once, all detached.

    Args:
        weight: W_r, the sum of weights that the block stands for: that of its samples, or of the
            whole batch that they are a part of.
        shares: ω_i of these samples among themselves.
        by_leaf: ω_i² ‖D ∇ℓ_ip‖², (B,), for every structured parameter p that contributes, by its
            id.
        euclidean: ω_i² ‖∇ℓ_i‖², (B,); None where only D was measured.
    """

    weight: Tensor | float
    shares: Shares
    by_leaf: Mapping[int, Tensor]
    euclidean: Tensor | None

    def contributions(self) -> Tensor:
        """ω_i ‖D ∇ℓ_i‖² over all parameters, (B,); their sum is the trace of the block."""
        parts = [own.double() for own in self.by_leaf.values()]
        if not parts:
            return torch.zeros(self.shares.count, dtype=torch.float64)
        squared = self.shares.squared_norms(sum([own.to(parts[0]) for own in parts[1:]], parts[0]))
        return squared * self.shares.as_tensor(squared)


@dataclass(frozen=True)
class SampleNorms:
    """The norms of all samples of a measurement; nothing is computed before it is asked for.

    A mean over samples is Σ_r (W_r/W) of the blocks', W = Σ_r W_r, as in `Gradients.merged`; sums
    are in float64. `f3eo.fisher.estimand` has the symbols.

    Args:
        blocks: of samples that went through the model together; one at least.
    """

    blocks: tuple[Block, ...]

    @classmethod
    def of(
        cls, shares: Shares, by_leaf: Mapping[int, Tensor], euclidean: Tensor | None
    ) -> "SampleNorms":
        """One block that stands for its own samples; see `Block`."""
        return cls((Block(shares.total, shares, by_leaf, euclidean),))

    def joined(self, other: "SampleNorms") -> "SampleNorms":
        """The norms of both."""
        return SampleNorms(self.blocks + other.blocks)

    def standing_for(self, weight: Tensor | int) -> "SampleNorms":
        """The same norms, of a part of a batch whose weights sum to `weight`."""
        blocks = [replace(block, weight=weight * share) for share, block in self._shared()]
        return SampleNorms(tuple(blocks))

    def trace_by_leaf(self) -> dict[int, Tensor]:
        """Σ_i ω_i ‖D ∇ℓ_ip‖² of every parameter that contributes, scalars by its id.

        Their sum is Tr(D F D).
        """
        sums: dict[int, Tensor] = {}
        for share, block in self._shared():
            for key, scaled in block.by_leaf.items():
                own = share * block.shares.trace(scaled.double())
                sums[key] = sums[key] + own if key in sums else own
        return sums

    def euclidean_trace(self) -> Tensor | None:
        """Tr F̂ = Σ_i ω_i ‖∇ℓ_i‖², a scalar; None where only D was measured."""
        total: Tensor | None = None
        for share, block in self._shared():
            if block.euclidean is None:
                return None
            own = share * block.shares.trace(block.euclidean.double())
            total = own if total is None else total + own
        return total

    def contributions(self) -> Tensor:
        """ω_i ‖D ∇ℓ_i‖² of every sample measured, (B,), in the order of the measurement."""
        return torch.cat([share * block.contributions() for share, block in self._shared()])

    def squared_shares(self) -> float | None:
        """Σ_i ω_i² over the batch that the norms stand for; 1/B without weights.

        None where samples have weights and only a part of them was measured.
        """
        if all(block.shares.weights is None for block in self.blocks):
            return 1 / float(sum(block.weight for block in self.blocks))
        total = 0.0
        for share, block in self._shared():
            if float(block.weight) != float(block.shares.total):
                return None
            ones = torch.ones(block.shares.count, dtype=torch.float64)
            total += float(share) ** 2 * float(block.shares.as_tensor(ones).square().sum())
        return total

    def _shared(self) -> Iterator[tuple[Tensor | float, Block]]:
        """W_r/W and the block, for every block."""
        whole = sum(block.weight for block in self.blocks)
        for block in self.blocks:
            yield block.weight / whole, block


def tensors_of(norms: SampleNorms | None) -> list[Tensor | None]:
    """All tensors of the norms, None in a place that has none."""
    found: list[Tensor | None] = []
    for block in () if norms is None else norms.blocks:
        weight = block.weight if isinstance(block.weight, Tensor) else None
        found += [weight, block.shares.weights, block.euclidean, *block.by_leaf.values()]
    return found


def norms_from(
    like: SampleNorms | None,
) -> Callable[[Sequence[Tensor | None]], SampleNorms | None]:
    """A function that puts what `tensors_of` gave back into its places.

    Args:
        like: has a tensor in each place; none of them is kept.
    """
    forms = [
        (
            None if isinstance(block.weight, Tensor) else block.weight,
            block.shares.count,
            [*block.by_leaf],
        )
        for block in (() if like is None else like.blocks)
    ]

    def norms(found: Sequence[Tensor | None]) -> SampleNorms | None:
        rest, blocks = iter(found), []
        for number, count, keys in forms:
            weight, weights, euclidean = next(rest), next(rest), next(rest)
            by_leaf = {key: next(rest) for key in keys}
            own = weight if number is None else number
            blocks.append(Block(own, Shares(count, weights), by_leaf, euclidean))  # pyright: ignore
        return SampleNorms(tuple(blocks)) if blocks else None

    return norms
