"""Names and options of stored rows: F3EO's in versions 0.1 and 0.2, and today's.

Version 0.1 called the option `strength` `weight`; `metric`, `residuals` and `limit` came later.
Rows are read in today's names (`current`). Keys are hashes of the first names (`first`), so a run
of any version has the key that version 0.1 gave it, and old studies are resumed.
"""

from collections.abc import Mapping
from typing import Any

METHOD, FIRST, CURRENT = "f3eo", "weight", "strength"
LATER: Mapping[str, Any] = {"metric": "euclidean", "residuals": "free", "limit": 1.0}
"""Options that rows without them had by these values."""


def current(method: str, variant: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A variant's label and options in today's names."""
    label, renamed = _renamed(method, variant, options, FIRST, CURRENT)
    complete = method == METHOD and CURRENT in renamed
    return label, {**LATER, **renamed} if complete else renamed


def first(method: str, variant: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A variant's label and options in the names of version 0.1."""
    return _renamed(method, variant, without_later(method, options), CURRENT, FIRST)


def without_later(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options but for later ones at the value that rows without them had."""
    later = LATER if method == METHOD else {}
    return {name: value for name, value in options.items() if later.get(name, ()) != value}


def _renamed(
    method: str, variant: str, options: Mapping[str, Any], old: str, new: str
) -> tuple[str, dict[str, Any]]:
    """Rename one option; a label names it where it begins with `old=`."""
    if method != METHOD or old not in options:
        return variant, dict(options)
    label = new + variant.removeprefix(old) if variant.startswith(f"{old}=") else variant
    return label, {new if name == old else name: value for name, value in options.items()}
