"""What processes tell one another before they sum: whether they can, and with which shares."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from math import isclose, isfinite, nan

import torch

TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of a loss; of two processes' the later one counts."""

COUNTERS = 4
"""Largest number of counts of an estimator that are agreed upon."""

SAME = 1e-5
"""Relative difference of factors on .grad that are one and the same."""


@dataclass(frozen=True)
class Facts:
    """What one process tells the others, as numbers.

    Args:
        failed: whether it raises an error in place of this step.
        step: its number.
        part: which measurement of the step it is; 0 is that of its batch.
        parameters, entries: numbers of trained tensors, and of entries in them.
        start: a sum over all entries where the process has not stepped yet, else NaN.
        samples: whether it has samples.
        counted: whether `weight` is their number, so that none has a weight.
        weight: W_r.
        factor: on .grad since it was accumulated; NaN where that says nothing.
        uniform: whether the factor explains the change.
        structure, squares, norms: whether h, squares and norms of samples were measured.
        observed: whether somebody there wants the norms of all.
        loss, trace: positions of their types in `TYPES`; −1 without.
        error: the expected relative error of h; −1 where not known.
        counters: of the estimator, `COUNTERS` of them.
    """

    failed: bool = False
    step: float = 0
    part: float = 0
    parameters: float = 0
    entries: float = 0
    start: float = nan
    samples: bool = False
    counted: bool = True
    weight: float = 0
    factor: float = nan
    uniform: bool = True
    structure: bool = False
    squares: bool = False
    norms: bool = False
    observed: bool = False
    loss: float = -1
    trace: float = -1
    error: float = -1
    counters: tuple[float, ...] = (0.0,) * COUNTERS

    def numbers(self) -> list[float]:
        """As numbers, as many on every process."""
        *alone, counters = astuple(self)
        padded = (*counters, *[0.0] * COUNTERS)[:COUNTERS]
        return [*map(float, alone), *map(float, padded)]


def from_numbers(numbers: Sequence[float]) -> Facts:
    """The facts that `Facts.numbers` gave."""
    names = [f.name for f in fields(Facts)][:-1]
    alone = dict(zip(names, numbers, strict=False))
    flags = {f.name for f in fields(Facts) if f.default in (True, False) and f.type is bool}
    found = {name: bool(value) if name in flags else value for name, value in alone.items()}
    return Facts(**found, counters=tuple(numbers[len(names) :]))  # pyright: ignore


def refusal(told: Sequence[Facts]) -> str | None:
    """Why these processes cannot make one step together, with the cure; None if they can.

    Args:
        told: of every process, none of which has failed.
    """
    for name, cure in (
        ("step", "call step() as often on every process, and load the same checkpoint"),
        ("part", "a part of `past` must measure on all of them or on none"),
        ("parameters", "build, freeze and thaw alike on all of them"),
        ("entries", "build, freeze and thaw alike on all of them"),
    ):
        values = [int(getattr(facts, name)) for facts in told]
        if len(set(values)) > 1:
            return f"processes disagree on the number of the {name}: {values}; {cure}"
    starts = [facts.start for facts in told]
    if any([isfinite(s) != isfinite(starts[0]) for s in starts]) or not all(
        [isclose(s, starts[0], rel_tol=1e-9) for s in starts if isfinite(s)]
    ):
        return (
            "processes start from different parameters: wrap the model in "
            "DistributedDataParallel, which sends those of the first one to all, build it from "
            "one seed, or load the same checkpoint on all of them"
        )
    factors = [facts.factor for facts in told if isfinite(facts.factor)]
    same = all([isclose(f, factors[0], rel_tol=SAME) for f in factors])
    if not same or not all([facts.uniform for facts in told]):
        return (
            "what was done to .grad after accumulate() is not the same on all processes, which "
            "each hold their own gradient until step() sums them: to clip use "
            "F3EO(…, max_norm=…), which acts after that"
        )
    return None
