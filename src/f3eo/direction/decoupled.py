"""The method: descend the trace where that leaves the loss alone."""

from collections.abc import Sequence

from f3eo.direction.rule import InnerProducts, Rule, together


class Decoupled(Rule):
    """update = g + λ h⊥, h⊥ = h − (⟨h, g⟩/⟨g, g⟩) g over all parameters together.

    ⟨g, h⊥⟩ = 0 in the base optimizer's metric: to first order the structure term does not change
    what the step does to the loss. (f3eo-theory, "解耦策略")
    """

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c = ⟨h, g⟩/⟨g, g⟩, the same for every tensor; 0 where g is 0."""
        return [_share(together(products))] * len(products)


class DecoupledPerTensor(Rule):
    """As `Decoupled`, but each tensor is projected by itself: ⟨g_p, h⊥_p⟩ = 0 for every p.

    A different method, and a stricter one: it removes as many directions as there are tensors.
    """

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c_p = ⟨h_p, g_p⟩/⟨g_p, g_p⟩."""
        return [_share(p) for p in products]


def _share(products: InnerProducts) -> float:
    return products.gh / products.gg if products.gg > 0 else 0.0
