"""Checks of what a user asks for, before anything is begun."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from f3eo.bench.methods.method import Method


def check_names(
    kind: str,
    names: Sequence[str] | Mapping[str, Any],
    known: Mapping[str, Any],
    may_be_empty: bool = False,
) -> None:
    """Refuse names that nobody knows, names that stand there twice, and none.

    Raises:
        ValueError: with the name, and those there are.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
    if not names and not may_be_empty:
        raise ValueError(f"no {kind} given; choose from {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a {kind} is named twice: {', '.join(names)}")


def check_setting(method: Method, name: str, value: Any, options: Mapping[str, Any]) -> None:
    """Refuse a hyper-parameter that cannot be, or that changes nothing.

    Args:
        method: whose it is.
        name, value: of the hyper-parameter.
        options: all those of the method that go with it.

    Raises:
        ValueError: with what is allowed, or the hyper-parameter that has an effect.
    """
    full, usual = f"{method.name}.{name}", method.defaults[name]
    if name in method.choices and value not in method.choices[name]:
        raise ValueError(f"{full} is one of {', '.join(method.choices[name])}, got {value!r}")
    if not isinstance(usual, str):
        kinds, what = (int, "whole number") if isinstance(usual, int) else ((int, float), "number")
        known = isinstance(value, kinds) and not isinstance(value, bool)
        if not known or not math.isfinite(value):
            raise ValueError(f"{full} takes a {what}, e.g. its default {usual}, got {value!r}")
    if reason := method.idle(options).get(name):
        raise ValueError(f"{full}={value} has no effect: {reason}")


def check_folder(kind: str, name: str) -> None:
    """Refuse a name that is not that of one folder.

    Raises:
        ValueError: with the name.
    """
    if not name or name in (".", "..") or set(name) & set("/\\"):
        raise ValueError(f"the name of a {kind} is one folder's name, got {name!r}")


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1; None is whatever is usual.

    Raises:
        ValueError: with the number and its name.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
