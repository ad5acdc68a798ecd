"""Which of two ways computes h: finite differences as long as they serve, else double backward."""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

R = TypeVar("R")

logger = logging.getLogger("f3eo")

PATIENCE = 3
"""Batches on which differences fail before double backward computes h for good."""


class Refusal(Exception):
    """Why finite differences do not give h on this batch."""

    level = logging.WARNING
    """Of the log message."""


class NotRepeatable(Refusal):
    """No second pass at other parameters is possible, on this and on every later batch."""


class Differs(Refusal):
    """The second pass is another function, or its differences are no products with a Hessian.

    Args:
        reason: what is wrong.
        counts: whether it counts towards `PATIENCE`.
    """

    def __init__(self, reason: str, *, counts: bool = True) -> None:
        super().__init__(reason)
        self.counts = counts


class Coarse(Refusal):
    """The expected error of differences is above what the estimator allows.

    Args:
        reason: why.
        batches: for how many batches it counts; `PATIENCE` of them are for good, and are warned of.
    """

    level = logging.INFO

    def __init__(self, reason: str, *, batches: int = 1) -> None:
        super().__init__(reason)
        self.batches = batches
        if batches >= PATIENCE:
            self.level = logging.WARNING


class Guard:
    """Decides between finite differences and double backward, and remembers what it learned.

    Differences are left for one batch after a `Refusal`, for good after a `NotRepeatable` or
    `PATIENCE` others. Each reason is logged once. If the closure has no second derivative,
    differences are forced from then on where `forcible` refuses them.

    Args:
        forcible: the class of refusals that a missing second derivative overrules.
        cure: completes the error message where neither way gives h.
    """

    def __init__(self, forcible: type[Refusal], cure: str) -> None:
        self._forcible = forcible
        self._cure = cure
        self.reset()

    def reset(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Forget everything but these counters.

        Args:
            counters: `coarse` and `alarms`, each 0 by default.
        """
        self.coarse: int = counters.get("coarse", 0)
        """Batches on which differences were `Coarse`."""
        self.alarms: int = counters.get("alarms", 0)
        """Batches on which `Differs` was raised and counts."""
        self._repeatable = True
        self._forced = False  # the closure is known to have no second derivative
        self._logged: set[str] = set()

    def adopt(self, counters: Mapping[str, int]) -> None:
        """Go on with these counts; those that are missing stay.

        Args:
            counters: `coarse` and `alarms`.
        """
        self.coarse = counters.get("coarse", self.coarse)
        self.alarms = counters.get("alarms", self.alarms)

    @property
    def allows_differences(self) -> bool:
        """Whether the next h is computed by finite differences, as far as is known."""
        precise = self.coarse < PATIENCE or self._forced
        return self._repeatable and precise and self.alarms < PATIENCE

    def compute(
        self, by_differences: Callable[[bool], R], by_double_backward: Callable[[], R]
    ) -> R:
        """The result of the first way that gives one.

        Args:
            by_differences: takes whether they are forced; raises a `Refusal`.
            by_double_backward: may fail for want of a second derivative.

        Raises:
            RuntimeError: neither way gives h; with the cure.
        """
        if not self.allows_differences:
            return by_double_backward()
        forced = self._forced
        try:
            return by_differences(forced)
        except Refusal as refusal:
            # The exception is not kept: its traceback holds the tensors of the first pass.
            reason, level = str(refusal), refusal.level
            forcible = not forced and isinstance(refusal, self._forcible)
            self._count(refusal)
        self._log(level, f"h by double backward instead of finite differences: {reason}")
        try:
            return by_double_backward()
        except (RuntimeError, NotImplementedError) as error:
            if not lacks_second_derivative(error):
                raise
            failure = error.with_traceback(None)
        if forcible:
            self._repeatable, self._forced = True, True
            self._log(
                logging.WARNING,
                f"h by finite differences all the same, the closure has no second derivative: "
                f"{reason}",
            )
            try:
                return by_differences(True)
            except Refusal as refusal:
                reason = str(refusal)
        raise RuntimeError(
            f"h cannot be computed by finite differences ({reason}) nor by double backward "
            f"({failure}): use operations that have second derivatives{self._cure}"
        ) from failure

    def _count(self, refusal: Refusal) -> None:
        if isinstance(refusal, NotRepeatable):
            self._repeatable = False
        elif isinstance(refusal, Coarse):
            self.coarse += refusal.batches
        elif isinstance(refusal, Differs):
            self.alarms += refusal.counts

    def _log(self, level: int, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            logger.log(level, message)


def lacks_second_derivative(error: Exception) -> bool:
    """Whether torch reports that an operation has no second derivative."""
    return "is not implemented" in str(error) or "once_differentiable" in str(error)


def failed_again(error: Exception) -> Differs:
    """The refusal for a second pass that fails where the first did not."""
    line = (str(error).strip().splitlines() or [""])[0]
    return Differs(f"the closure failed when run again, {type(error).__name__}: {line}")


def custom(names: list[str]) -> NotRepeatable:
    """The refusal for custom autograd functions in the graph.

    Args:
        names: their names.
    """
    return NotRepeatable(
        f"a custom autograd.Function ({', '.join(names)}) is in the graph, whose backward need not "
        f"be the derivative of its forward"
    )
