"""What a user is told about the losses that a closure returns."""

import warnings
from collections.abc import Hashable

from f3eo.closure.loss_kind import LossKind, read_loss_kind
from f3eo.closure.output import Output
from f3eo.strength import Strength

LOOKS = 16
"""Evaluations that are all looked at; later ones where their number is a power of two."""


class Notices:
    """Looks at losses while they have a graph, and warns once of each thing that is found.

    A look reads some tens of nodes of the graph; one at ignored labels waits for the device.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._shapes: set[Hashable] = set()
        self._told = False

    def __call__(self, output: Output, strength: Strength) -> None:
        """Look at what the closure gave.

        Args:
            output: with its graph.
            strength: told what the losses are.
        """
        self._looks += 1
        shape = output.losses.shape
        if self._looks > LOOKS and self._looks & (self._looks - 1) and shape in self._shapes:
            return
        self._shapes.add(shape)
        if output.likelihood is not None:
            strength.see(LossKind(nats=True, density=True), output.losses)
            return
        found = read_loss_kind(output.losses)
        strength.see(found, output.losses)
        if found.ignored and output.shares.weights is None and not self._told:
            self._told = True
            warnings.warn(
                f'{found.ignored} labels are ignored, and reduction="none" leaves losses of 0 in '
                f"their place, which count in the mean: for the mean over the others return "
                f"Categorical(logits, targets, per_token=True) or Weighted(losses, weights) with "
                f"weights of 0 there",
                stacklevel=2,
            )
