"""A schedule that grows linearly and then stays."""

from f3eo.shown import Shown
from f3eo.strength.strength import number


class Warmup(Shown):
    """Factor that grows linearly from 1/steps to 1 over `steps` steps and stays there.

    Args:
        steps: length of the warm-up in optimizer steps, at least 1.
        delay: steps before it, during which the factor is 0; default 0.

    Raises:
        TypeError, ValueError: no integers, steps below 1 or a negative delay.
    """

    def __init__(self, steps: int, delay: int = 0) -> None:
        number(self, "steps", steps, int)
        number(self, "delay", delay, int)
        if steps < 1 or delay < 0:
            raise ValueError(
                f"Warmup needs steps >= 1 and delay >= 0, received {steps} and {delay}"
            )
        self.steps = steps
        self.delay = delay

    def __call__(self, step: int) -> float:
        """The factor at a step, counted from 0."""
        return min(1.0, max(0.0, (step - self.delay + 1) / self.steps))
