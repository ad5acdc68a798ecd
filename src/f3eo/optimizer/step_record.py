"""What an observer of the optimizer is told about one step."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from f3eo.direction import InnerProducts, Update, together
from f3eo.fisher.sample_norms import SampleNorms
from f3eo.optimizer.descent import Descent
from f3eo.optimizer.measured import Measured
from f3eo.tensors import Vector


@dataclass(frozen=True)
class StepRecord:
    """One step that was made, as the optimizer measured it: `f3eo.fisher.estimand` has the symbols.

    The tensors are those of the step itself. Read them, write into none, and keep none for longer
    than the call unless its memory may stay in use.

    Args:
        number: of the step, from 0.
        loss: L of the batch as the closure returned it, a scalar; log-probabilities where it
            maximizes.
        parameters: the structured parameters, C of them.
        names: of them, as the groups have them, or their positions "0", "1", … there.
        gradient: ∇L in them, uphill on what is to become smaller, (C,); with what a user did to
            .grad after `accumulate`, with what `past` joined, and before `max_norm`. None where the
            loss does not use one.
        structure: h, (C,), with the same factor, what joined, and off the gradients of further
            losses that are left alone; None at a step that did not measure it.
        squared: ‖∇L‖² over all parameters, structured or not.
        products: ⟨g, g⟩, ⟨g, h⟩, ⟨h, h⟩ over the structured ones, Euclidean.
        trace: Tr(D F D) of the batch as this step measured it, a scalar; None where it did not.
        norms: of single samples, before any factor; None where the estimator keeps none.
        factor: f of ∇L = f · (∇L as measured); None where no one factor explains the change,
            and where something joined it.
        strength: λ as the step took it, for all the steps that a measurement serves; None at a
            step without a structure term.
        distance: ‖d‖, Euclidean, d = h − c g by the rule; None as λ.
    """

    number: int
    loss: Tensor
    parameters: list[Tensor]
    names: list[str]
    gradient: list[Tensor | None]
    structure: Vector | None
    squared: float
    products: InnerProducts
    trace: Tensor | None
    norms: SampleNorms | None
    factor: float | None = 1.0
    strength: float | None = None
    distance: float | None = None


Observer = Callable[[StepRecord], object]
"""Called after every step that was made."""


def step_record(
    number: int, measured: Measured, found: Descent, update: Update | None
) -> StepRecord:
    """The record of a step.

    Args:
        number: of the step, from 0.
        measured: gradients of its batch.
        found: the same, combined.
        update: the structure term as the base took it; None without one.
    """
    gradients, change, trained = measured.gradients, measured.change, found.trained
    names = trained.names or list(map(str, range(len(trained.parameters))))
    return StepRecord(
        number=number,
        loss=measured.loss,
        parameters=trained.chosen,
        names=[name for name, s in zip(names, trained.structured, strict=True) if s],
        gradient=found.own,
        structure=found.structure,
        squared=found.squared,
        products=together(found.products),
        trace=gradients.trace,
        norms=gradients.norms,
        factor=change.factor if change.uniform else None,
        strength=None if update is None else update.strength,
        distance=None if update is None else update.distance(found.products),
    )
