"""The decoupled rule: descend the trace along directions that leave the loss alone."""

from collections.abc import Sequence

from f3eo.direction.rule import InnerProducts, Rule


class Decoupled(Rule):
    """u = g + λ d with d = h⊥ = h − (⟨h, g⟩/⟨g, g⟩) g, projected over all parameters together.

    ⟨g, d⟩ = 0 in the metric of the base: to first order the structure term does not change what the
    step does to the loss. Source: f3eo-theory, "解耦策略".
    """

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c = ⟨h, g⟩/⟨g, g⟩, the same for every tensor; 0 where g is 0."""
        gh, gg = sum([p.gh for p in products]), sum([p.gg for p in products])
        return [gh / gg if gg > 0 else 0.0] * len(products)


class DecoupledPerTensor(Rule):
    """As `Decoupled`, with every tensor p projected by itself: ⟨g_p, d_p⟩ = 0.

    It is another method, and a stricter one: it removes one direction per tensor instead of one.
    """

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c_p = ⟨h_p, g_p⟩/⟨g_p, g_p⟩; 0 where g_p is 0."""
        return [p.gh / p.gg if p.gg > 0 else 0.0 for p in products]
