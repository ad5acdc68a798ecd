"""Warnings about the losses of a closure and about changed gradients, each given once."""

import warnings
from collections.abc import Hashable

from f3eo.closure.loss_kind import LossKind, read_divisor, read_loss_kind
from f3eo.closure.loss_scale import LossScale
from f3eo.closure.output import Output
from f3eo.strength import Strength

LOOKS = 16
"""The first so many evaluations are looked at; later ones where their number is a power of 2."""


class Notices:
    """Looks at losses while they have a graph, and warns once of each finding.

    A look reads some tens of nodes of the graph. Counting ignored labels waits for the device.

    Args:
        strength: is told what kind of losses the closure returns.
        scale: is shown the losses of the first two evaluations, and of the later looks.
    """

    def __init__(self, strength: Strength, scale: LossScale | None) -> None:
        self._strength = strength
        self._scale = scale
        self._looks = 0
        self._shapes: set[Hashable] = set()
        self._warned_of_labels = False
        self._warned_of_change = False
        self.accumulates = False
        """Whether losses are micro-batches', so that a division of them is looked for."""
        self._divisor = 1.0
        self._warned_of_division = False

    def __call__(self, output: Output) -> None:
        """Look at the result of one evaluation.

        Args:
            output: with its graph.
        """
        self._looks += 1
        shape = output.losses.shape
        if self._looks > LOOKS and self._looks & (self._looks - 1) and shape in self._shapes:
            return
        self._shapes.add(shape)
        if self._scale is not None and (self._looks <= 2 or self._looks > LOOKS):
            self._scale.see(output.losses)
        if output.likelihood is not None:
            self._strength.see(LossKind(nats=True, density=True), output.losses)
            return
        if self.accumulates:
            self._divisor = read_divisor(output.losses)
        found = read_loss_kind(output.losses)
        self._strength.see(found, output.losses)
        if found.ignored and output.shares.weights is None and not self._warned_of_labels:
            self._warned_of_labels = True
            warnings.warn(
                f'{found.ignored} labels are ignored, and reduction="none" leaves losses of 0 in '
                f"their place, which count in the mean: for the mean over the others return "
                f"Categorical(logits, targets, per_token=True) or Weighted(losses, weights) with "
                f"weights of 0 there",
                stacklevel=2,
            )

    def warn_of_division(self, count: int, stacklevel: int) -> None:
        """Warn that losses are divided by the number of micro-batches, as for `loss.backward()`.

        Args:
            count: of the micro-batches of this step.
            stacklevel: as in `warnings.warn`, from the caller of this function.
        """
        same = count > 1 and abs(self._divisor / count - 1) < 1e-6
        if not same or self._warned_of_division:
            return
        self._warned_of_division = True
        warnings.warn(
            f"the closure divides its losses by {count}, and so many micro-batches were "
            f"accumulated: accumulate() averages over their samples by itself, so ∇L is {count} "
            f"times too small; return the losses as they are",
            stacklevel=stacklevel + 1,
        )

    def warn_of_change(self, stacklevel: int) -> None:
        """Warn that .grad was changed by more than a common factor.

        Args:
            stacklevel: as in `warnings.warn`, from the caller of this function.
        """
        if self._warned_of_change:
            return
        self._warned_of_change = True
        warnings.warn(
            "what was done to .grad after accumulate() is no common factor: the structure gradient "
            "is scaled as the norm of all .grad was; to clip use max_norm, or "
            "torch.nn.utils.clip_grad_norm_",
            stacklevel=stacklevel + 1,
        )
