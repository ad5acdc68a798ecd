"""Names that stored rows use for F3EO's option `strength`, which version 0.1 called `weight`.

Rows are read in today's names (`current`). Keys are hashes of the old names (`first`), so a run of
any version has the key that version 0.1 gave it, and old studies are resumed.
"""

from collections.abc import Mapping
from typing import Any

METHOD, FIRST, CURRENT = "f3eo", "weight", "strength"


def current(method: str, variant: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A variant's label and options in today's names."""
    return _renamed(method, variant, options, FIRST, CURRENT)


def first(method: str, variant: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A variant's label and options in the names of version 0.1."""
    return _renamed(method, variant, options, CURRENT, FIRST)


def _renamed(
    method: str, variant: str, options: Mapping[str, Any], old: str, new: str
) -> tuple[str, dict[str, Any]]:
    """Rename one option; a label names it where it begins with `old=`."""
    if method != METHOD or old not in options:
        return variant, dict(options)
    label = new + variant.removeprefix(old) if variant.startswith(f"{old}=") else variant
    return label, {new if name == old else name: value for name, value in options.items()}
