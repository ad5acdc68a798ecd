"""What is specific to a kind of runs: how one is carried out, and how its row is read and shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from f3eo.bench.execute.accuracies import Accuracies
from f3eo.bench.execute.view import View
from f3eo.bench.run.row import Row, equal, failed, record, restore


class Runnable(Protocol):
    """A run: all data that determine its result."""

    @property
    def key(self) -> str:
        """Identifies it."""
        ...

    @property
    def contest(self) -> tuple[str, ...]:
        """What its result is compared within, such as a task and what is held equal."""
        ...

    @property
    def contender(self) -> tuple[str, ...]:
        """What is compared, such as a method and its variant."""
        ...

    @property
    def setting(self) -> Mapping[str, Any]:
        """Values that must be equal within a contest."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The setting, the contender's options and its price, as rows store them."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of runs.

    Args:
        record: (run, progress) -> its row, one with the error if it fails; a function of a module,
            since workers import it. A third argument, if models are kept, watches the training.
        failed: (run, error) -> the row of a run that ended with an error.
        restore: a stored row -> the row, checked, in today's names; raises ValueError or TypeError.
        contest, contender: a row -> those of its run.
        view: all runs of an execution -> what the display shows of them.
    """

    record: Callable[..., Row]
    failed: Callable[[Any, str], Row]
    restore: Callable[[Any], Row]
    contest: Callable[[Row], tuple[str, ...]]
    contender: Callable[[Row], tuple[str, ...]]
    view: Callable[[Sequence[Any]], View]


RUNS = Kind(
    record=record,
    failed=failed,
    restore=restore,
    contest=lambda row: (row["task"], equal(row)),
    contender=lambda row: (row["method"], row.get("variant", "")),
    view=Accuracies,
)
"""The runs of comparisons and studies."""
