"""What a sink is: any function of a step and its scalars."""

from collections.abc import Callable

Sink = Callable[[int, dict[str, float]], object]
"""sink(step, scalars): the number of the step, from 0, and scalars by name, NaN and infinite ones
included. The monitor calls its `close()` at the end, if it has one."""


def check_open(sink: object, *, closed: bool) -> None:
    """Refuse to write to a sink that is closed.

    Raises:
        ValueError: it is.
    """
    if closed:
        raise ValueError(f"{type(sink).__name__} is closed: make a new one to go on")
