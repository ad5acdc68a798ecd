"""The source document's first rule: follow the gradient of the trace alone."""

from collections.abc import Sequence

from f3eo.direction.rule import InnerProducts, Rule


class Direct(Rule):
    """update = λ h; the loss gradient does not take part.

    The document's listing steps along ∇‖g‖² = 2 H g: `strength=Fixed(2.0)`. Known to end in zero
    gradient and random accuracy when used alone. (f3eo-theory, "Matrix-Free HVP")
    """

    replaces_gradient = True

    def shares(self, products: Sequence[InnerProducts]) -> list[float]:
        """See `Rule.shares`: c = 0, the direction is h."""
        return [0.0] * len(products)
