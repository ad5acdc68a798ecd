"""The quantities in reports: column in a row, name, unit and axis."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A measured quantity.

    Attributes:
        column: its name in `final` and `curve` of a row.
        name: name and unit in tables and figures.
        scale: scale of its axis; default "linear".
        factor: the shown value over the stored value; default 1.
        larger_is_better: whether larger values are better; default False.
    """

    column: str
    name: str
    scale: Literal["linear", "log"] = "linear"
    factor: float = 1.0
    larger_is_better: bool = False


ACCURACY = Metric("test_accuracy", "Test accuracy (%)", factor=100, larger_is_better=True)
TEST_LOSS = Metric("test_loss", "Test loss (nats)", "log")
TRAIN_LOSS = Metric("train_loss", "Training loss (nats)", "log")
TRACE = Metric("fisher_trace", "Tr F on training samples", "log")
CALIBRATION = Metric("calibration_error", "Expected calibration error (%)", factor=100)
EIGENVALUE = Metric("top_eigenvalue", "Largest Hessian eigenvalue", "log")
GAP = Metric("gap", "Generalisation gap: test minus training loss (nats)")
