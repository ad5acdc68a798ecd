"""The quantities in reports: column in a row, name, unit and axis."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Metric(NamedTuple):
    """A measured quantity.

    Attributes:
        column: its name in `final` and `curve` of a row.
        name: name and unit in tables and figures.
        scale: scale of its axis; default "linear".
        factor: the shown value over the stored value; default 1.
        larger_is_better: whether larger values are better; default False.
        before: a column that the quantity falls from: its value is then `before` minus `column`;
            default "", the value of `column` itself.
    """

    column: str
    name: str
    scale: Literal["linear", "log"] = "linear"
    factor: float = 1.0
    larger_is_better: bool = False
    before: str = ""

    @property
    def percent(self) -> bool:
        """Whether it is shown in %."""
        return self.factor == 100

    def read(self, values: Mapping[str, Any] | None) -> float | None:
        """The shown value, from an entry of a row; None where it is not there or not finite.

        Rows of earlier versions lack what was not measured then.
        """
        value, before = ((values or {}).get(name) for name in (self.column, self.before))
        if self.before and value is not None:
            value = None if before is None else before - value
        return value * self.factor if value is not None and math.isfinite(value) else None


ACCURACY = Metric("test_accuracy", "Test accuracy (%)", factor=100, larger_is_better=True)
TEST_LOSS = Metric("test_loss", "Test loss (nats)", "log")
TRAIN_LOSS = Metric("train_loss", "Training loss (nats)", "log")
TRACE = Metric("fisher_trace", "Tr F on training samples", "log")
CALIBRATION = Metric("calibration_error", "Expected calibration error (%)", factor=100)
EIGENVALUE = Metric("top_eigenvalue", "Largest Hessian eigenvalue", "log")
GAP = Metric("gap", "Generalisation gap: test minus training loss (nats)")
SCALED_CALIBRATION = Metric(
    "scaled_calibration_error", "Calibration error after temperature scaling (%)", factor=100
)
SCALED_LOSS = Metric("scaled_loss", "Test loss after temperature scaling (nats)", "log")
CORRUPTED = Metric(
    "corrupted_accuracy", "Accuracy on corrupted inputs (%)", factor=100, larger_is_better=True
)
NOISE = Metric("weight_noise_response", "Loss added by 10 % weight noise (nats)")


def _lost(column: str, to: str) -> Metric:
    return Metric(column, f"Accuracy lost to {to} (%)", factor=100, before="clean_accuracy")


CORRUPTION_LOST = _lost("corrupted_accuracy", "corrupted inputs")
INT8_LOST = _lost("int8_accuracy", "8-bit weights")
INT4_LOST = _lost("int4_accuracy", "4-bit weights")
PRUNED50_LOST = _lost("pruned50_accuracy", "pruning of 50 %")
PRUNED80_LOST = _lost("pruned80_accuracy", "pruning of 80 %")
