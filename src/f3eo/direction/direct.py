"""The source document's first rule: follow the gradient of the trace alone."""

from collections.abc import Sequence

from f3eo.direction.rule import InnerProducts, Rule


class Direct(Rule):
    """u = λ h; the loss gradient takes no part.

    The document's listing steps along ∇‖g‖² = 2 H g, which is `strength=Fixed(2.0)`. Used alone it
    ends at zero gradients and chance accuracy. Source: f3eo-theory, "Matrix-Free HVP".
    """

    replaces_gradient = True

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c = 0, so d = h."""
        return [0.0] * len(products)
