"""What a controller is tried on: plants with a closed form in place of a training."""

from collections.abc import Callable

import torch

from f3eo.control import TraceTarget
from f3eo.extend import Observation


def run(
    strength: TraceTarget,
    plant: Callable[[float], float],
    steps: int,
    *,
    lag: float = 1.0,
    noise: Callable[[int], float] = lambda step: 1.0,
    gradient: float = 1e9,
    first: int = 0,
) -> list[float]:
    """Close the loop: λ → trace → λ.

    Args:
        strength: the controller.
        plant: λ → the trace at which it comes to rest.
        steps: measured steps.
        lag: its time constant, in steps.
        noise: step → factor on what is measured.
        gradient: ‖g‖; ‖d‖ is 1.
        first: number of the first step.

    Returns:
        λ of every step, as bounded.
    """
    found, trace = list[float](), plant(0.0)
    for step in range(first, first + steps):
        seen = torch.tensor(trace * noise(step), dtype=torch.float64)
        constant = strength.at(Observation(step, 1.0, seen, 1.0))
        found.append(strength.multiplier(constant, gradient, 1.0))
        trace += (plant(found[-1]) - trace) / lag
    return found
