"""The interface of what joins a step from before its batch, such as earlier tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.fisher import Gradients
from f3eo.shown import Shown

Data = Iterable[Any]
"""Batches, each a tuple of the closure's arguments, as a DataLoader gives them."""

Measure = Callable[[tuple[Any, ...] | None, bool], Gradients | None]
"""(batch, whether h is measured) → L, g and, with h, the trace of another batch by the same closure
and estimator. The batch goes through the model by itself. Of several processes all must measure, a
process without a batch None; the result is that of all batches, and None where nobody has one."""


@dataclass(frozen=True)
class Present:
    """The batch of a step, as it was measured before anything joined.

    Args:
        batches: the closure's arguments, one tuple a micro-batch.
        gradients: L, g, h and Tr(D F D); g as .grad held it, and h with the same factor.
        parameters: that the step trains, P of them, as they are before it.
        structured: for each, whether it takes part in the structure term.
        signs: for each, −1 where its group maximizes; g is that of the closure's losses.
        rates: for each, its learning rate.
        measure: measures another batch.
    """

    batches: Sequence[tuple[Any, ...]]
    gradients: Gradients
    parameters: list[Tensor]
    structured: list[bool]
    signs: list[int]
    rates: list[float]
    measure: Measure


@dataclass(frozen=True)
class Joined:
    """What a step descends.

    Args:
        gradients: L, g and h of everything that has joined; all else is that of the batch.
        held: further gradients of losses, (P,) each, None where one is not reached: the structure
            direction leaves these losses alone, too, whatever the rule.
    """

    gradients: Gradients
    held: tuple[list[Tensor | None], ...] = ()


class Past(Shown, ABC):
    """A part that adds to every step what the batch does not say: `F3EO(..., past=part)`.

    Parts join one after the other, once a step. One that has nothing to add returns what it was
    given, and the step is then that without it, bit for bit.
    """

    reads_squares: bool = False
    """Whether the estimator measures `Gradients.squares` for it."""

    keeps_samples: bool = False
    """Whether the state holds samples, which are those of one process where there are several."""

    @abstractmethod
    def join(self, present: Present, joined: Joined) -> Joined:
        """What the step descends with this part.

        Args:
            present: the batch.
            joined: of the parts before this one.
        """

    def after(self, present: Present) -> None:
        """Called when the base has stepped, and not at a step that is skipped; default nothing."""

    def consolidate(
        self,
        model: nn.Module | Iterable[Tensor],
        closure: Closure | None = None,
        data: Data | None = None,
    ) -> None:
        """A task ends here; default nothing.

        Args:
            model: a module, or its parameters.
            closure: returns per-sample losses, or a likelihood, of a batch.
            data: batches of the task that ends, each a tuple of the closure's arguments.
        """

    @abstractmethod
    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """All that changes from step to step, as numbers, tensors and nestings of them.

        Args:
            parameters: in an order that is the same when it is loaded.
        """

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """Continue from what `state_dict` returned, for these parameters in the same order."""
