"""The source document's first rule: follow the gradient of the trace alone."""

from torch import Tensor

from f3eo.tensors import Vector
from f3eo.updates.rule import Rule


class Direct(Rule):
    """update = λ h, h = ½∇Tr F; the loss gradient does not take part.

    The document's listing steps along ∇‖g‖² = 2 H g: `weight=Fixed(2.0)`. Known to end in zero gradient
    and random accuracy when used alone. (f3eo-theory, "Matrix-Free HVP")
    """

    replaces_gradient = True

    def direction(self, gradient: Vector, structure: Vector, metric: Vector | None) -> list[Tensor]:
        """See `Rule.direction`: h."""
        return list(structure)
