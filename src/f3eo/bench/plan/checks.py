"""Checks of the user's input, made before any work starts."""

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
    """Refuse unknown names, repeated names and an empty list.

    Args:
        kind: what the names are of, for the message, e.g. "task".
        names: names to check.
        known: allowed names.
        may_be_empty: whether an empty list is allowed; default False.

    Raises:
        ValueError: with the name and the allowed names.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
    if not names and not may_be_empty:
        raise ValueError(f"no {kind} given; choose from {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a {kind} is named twice: {', '.join(names)}")


def check_setting(method: Method, name: str, value: Any, options: Mapping[str, Any]) -> None:
    """Refuse a hyper-parameter with an invalid value, and one that has no effect.

    Args:
        method: the method.
        name, value: the hyper-parameter.
        options: all hyper-parameters that the method would run with.

    Raises:
        ValueError: with the allowed values, or with the hyper-parameter that has an effect.
    """
    full, default = f"{method.name}.{name}", method.defaults[name]
    if name in method.choices and value not in method.choices[name]:
        raise ValueError(f"{full} is one of {', '.join(method.choices[name])}, got {value!r}")
    if not isinstance(default, str):
        types, kind = (
            (int, "whole number") if isinstance(default, int) else ((int, float), "number")
        )
        valid = isinstance(value, types) and not isinstance(value, bool)
        if not valid or not math.isfinite(value):
            example = "" if default is None else f", e.g. its default {default}"
            raise ValueError(f"{full} takes a {kind}{example}, got {value!r}")
    if reason := method.idle(options).get(name):
        raise ValueError(f"{full}={value} has no effect: {reason}")


def check_folder(kind: str, name: str) -> None:
    """Refuse a name that is not the name of a single folder.

    Raises:
        ValueError: with the name.
    """
    if not name or name in (".", "..") or set(name) & set("/\\"):
        raise ValueError(
            f"the name of a {kind} must be the name of a single folder, got {name!r}; "
            "--folder sets the folder above it"
        )


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1; None stands for a default.

    Raises:
        ValueError: with the number and its name.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_positive(**values: float | None) -> None:
    """Refuse numbers that are not positive and finite; None stands for a default.

    Raises:
        ValueError: with the number and its name.
    """
    for name, value in values.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a positive number, got {value}")
