"""What a step does where a loss or a gradient is not finite: skip it, or raise."""

import logging
import warnings
from typing import Any, Protocol

from f3eo.closure.snapshot import Snapshot

logger = logging.getLogger("f3eo")


class Counting(Protocol):
    """An optimizer that counts its steps.

    Args:
        steps: made so far.
        skipped: because something was not finite.
        on_nonfinite: "skip" or "raise".
    """

    steps: int
    skipped: int
    on_nonfinite: str


def check_policy(on_nonfinite: Any) -> str:
    """The policy itself, "skip" or "raise".

    Raises:
        ValueError: anything else.
    """
    if on_nonfinite not in ("skip", "raise"):
        raise ValueError(f'on_nonfinite must be "skip" or "raise", received {on_nonfinite!r}')
    return on_nonfinite


def skip_overflow(optimizer: Counting, snapshot: Snapshot, scale: float) -> None:
    """Leave everything as before a step whose gradients a loss scale has made overflow; count it.

    Args:
        optimizer: whose step it is.
        snapshot: of the state before the closure ran.
        scale: S of the step; the next one has a smaller one.
    """
    snapshot.restore_buffers()
    optimizer.skipped += 1
    logger.info(
        "gradients overflow float16 at a loss scale of %g: the step is skipped, and the scale "
        "lowered",
        scale,
    )


def skip(
    what: str,
    optimizer: Counting,
    snapshot: Snapshot,
    cure: str = "lower the learning rate or the strength, check the data",
    *,
    stacklevel: int = 5,
) -> None:
    """Leave everything as before the step, count it, and warn at powers of ten; or raise.

    Args:
        what: is not finite.
        optimizer: whose step it is.
        snapshot: of the state before the closure ran.
        cure: for the message of the error.
        stacklevel: as in `warnings.warn`, from this function; default the caller of a `step` under
            a decorator.

    Raises:
        FloatingPointError: the policy is "raise".
    """
    if optimizer.on_nonfinite == "raise":
        snapshot.restore()
        raise FloatingPointError(f'{what} is not finite: {cure}, or use on_nonfinite="skip"')
    snapshot.restore_buffers()
    optimizer.skipped += 1
    count = optimizer.skipped
    if count == 1:
        said = "the step is skipped, as are all further ones of this kind"
    elif str(count).strip("0") == "1":
        said = f"{count} of {optimizer.steps + count} steps are skipped by now"
    else:
        return
    name = type(optimizer).__name__
    warnings.warn(
        f"{what} is not finite: {said} (counted in {name}.skipped)", stacklevel=stacklevel
    )
