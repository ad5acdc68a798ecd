"""The penalty: descend the loss plus a multiple of the trace."""

from torch import Tensor

from f3eo.tensors import Vector
from f3eo.updates.rule import Rule


class Coupled(Rule):
    """update = g + λ h: the gradient of L + (λ/2) Tr F for a fixed λ.

    With `estimator=Batch()` this is the gradient-norm penalty (2101.12176, 2202.03599), with
    `PerSample()` the Fisher penalty (2012.14193).
    """

    def direction(self, gradient: Vector, structure: Vector, metric: Vector | None) -> list[Tensor]:
        """See `Rule.direction`: h."""
        return list(structure)
