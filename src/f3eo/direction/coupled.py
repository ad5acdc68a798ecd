"""The penalty: descend the loss plus a multiple of the trace."""

from collections.abc import Sequence

from f3eo.direction.rule import InnerProducts, Rule


class Coupled(Rule):
    """u = g + λ h: the gradient of L + (λ/p) E‖∇ℓ_i‖^p for a fixed λ, p the estimator's power.

    With `estimator=MiniBatch()` it is the gradient-norm penalty (2101.12176, 2202.03599), with
    `PerSample(power=2)` the Fisher penalty L + (λ/2) Tr F (2012.14193).
    """

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c = 0, so d = h."""
        return [0.0] * len(products)
