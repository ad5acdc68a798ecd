"""What a method wraps: a base by name, with the momentum the base has by itself."""

from collections.abc import Mapping

MOMENTUM: Mapping[str, float] = {"sgd": 0.9, "adamw": 0.9, "muon": 0.95}
"""By base; AdamW's is β₁."""


def over(base: str) -> dict[str, str | float]:
    """The options `base` and `momentum` of a method that wraps this base."""
    return {"base": base, "momentum": MOMENTUM[base]}
