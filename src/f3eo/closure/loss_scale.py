"""The factor on losses in backward passes through float16, where small gradients vanish."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.graph import nodes
from f3eo.shown import Shown

NAME = "loss_scale"
"""Before the names of the counters, among those of an optimizer."""

KEPT = ("scale", "passed", "growth", "backoff", "interval")
"""Attributes that are counters."""


class LossScale(Shown):
    """S: backward passes start from S ℓ_i, and what they give is divided by powers of S.

        g = (1/S) ∇(S L)      ‖D ∇ℓ_i‖² = (1/S²) ‖D ∇(S ℓ_i)‖²      h = (1/S) h'

    h' is what the passes give, of a quantity that is linear in S. float16 has no number below 6e-8,
    and few below 6e-5. The divisions are in float32. Where nothing between parameters and losses is
    float16, S is 1 and nothing changes.

    A step with a gradient that is not finite is skipped, and S ← `backoff` · S. After `interval`
    other steps S ← `growth` · S. As `torch.amp.GradScaler`, but for two things: S does not fall
    below 1, and losses that are not finite themselves leave it alone.

    Args:
        initial: S of the first step, at least 1; default 2¹⁵, the largest power of 2 in float16.
        growth: factor above 1; default 2.
        backoff: factor between 0 and 1; default ½.
        interval: steps from one growth to the next, at least 1; default 2,000.

    Raises:
        ValueError: an argument out of its range.

    Source: Micikevicius et al. 2018 (1710.03740), section 3.2.
    """

    def __init__(
        self,
        initial: float = 2.0**15,
        *,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        if not (isfinite(initial) and initial >= 1):
            raise ValueError(f"LossScale needs a finite initial >= 1, received {initial}")
        if not (isfinite(growth) and growth > 1):
            raise ValueError(f"LossScale needs a finite growth > 1, received {growth}")
        if not 0 < backoff < 1:
            raise ValueError(f"LossScale needs backoff in (0, 1), received {backoff}")
        if not interval >= 1:
            raise ValueError(f"LossScale needs interval >= 1 steps, received {interval}")
        self.initial, self.growth = float(initial), float(growth)
        self.backoff, self.interval = float(backoff), int(interval)
        self.scale = self.initial
        """S where something is float16."""
        self.passed = 0
        """Steps since S last changed."""
        self.factor = 1.0
        """S of the losses that were looked at last: `scale`, or 1 where nothing is float16."""

    @classmethod
    def of(cls, value: Any) -> "LossScale":
        """A loss scale from what a user hands over.

        Args:
            value: None, a `LossScale`, a number (its `initial`), or a `torch.amp.GradScaler`, whose
                numbers are taken.

        Raises:
            TypeError: something else.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, torch.amp.GradScaler):
            if not value.is_enabled():
                return cls()
            return cls(
                max(1.0, value.get_scale()),
                growth=value.get_growth_factor(),
                backoff=value.get_backoff_factor(),
                interval=value.get_growth_interval(),
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return cls(value)
        raise TypeError(
            f"loss_scale is a LossScale, a number, a torch.amp.GradScaler, or None for the "
            f"default, received {value!r}"
        )

    @property
    def is_default(self) -> bool:
        """Whether it was made without numbers of its own."""
        return repr(self) == repr(LossScale())

    def take(self, other: "LossScale") -> None:
        """Begin as another one does, unless this one was made with numbers of its own.

        Args:
            other: the other one.
        """
        if self.is_default:
            vars(self).update(vars(other) | {"factor": self.factor})

    def see(self, losses: Tensor) -> None:
        """Look for float16 between the parameters and the losses.

        Args:
            losses: with their graph.
        """
        self.factor = self.scale if has_float16(losses) else 1.0

    def back_off(self, factor: float) -> bool:
        """Lower S after a gradient that is not finite.

        Args:
            factor: the S that it was measured with, the largest of several processes'.

        Returns:
            False where S was 1: then no scale has caused it.
        """
        if factor <= 1:
            return False
        self._change(max(1.0, factor * self.backoff))
        return True

    def pass_on(self) -> None:
        """Count a step whose gradients were finite."""
        self.passed += 1
        if self.passed >= self.interval:
            self._change(self.scale * self.growth)

    def counters(self) -> dict[str, Any]:
        """What is saved with an optimizer, the numbers that it was made with among it.

        Nothing where it is as `LossScale()` makes it, as without float16.
        """
        if self.is_default and self.scale == self.initial and self.passed == 0:
            return {}
        return {f"{NAME}_{name}": getattr(self, name) for name in KEPT}

    def load(self, counters: Mapping[str, Any]) -> None:
        """Go on with these counters, as a GradScaler does; without them, as it was made."""
        self.scale, self.passed = self.initial, 0
        for name in KEPT:
            value = counters.get(f"{NAME}_{name}", getattr(self, name))
            setattr(self, name, type(getattr(self, name))(value))

    def _change(self, scale: float) -> None:
        self.factor = scale if self.factor > 1 else self.factor
        self.scale, self.passed = scale, 0


def has_float16(losses: Tensor) -> bool:
    """Whether a tensor between the parameters and the losses is float16."""
    if losses.dtype == torch.float16:
        return True
    return any(
        meta.dtype == torch.float16 for node in nodes(losses) for meta in node._input_metadata
    )
