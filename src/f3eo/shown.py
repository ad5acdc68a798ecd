"""How parts show themselves: as they are typed."""

from inspect import Parameter, signature
from typing import Any


class Shown:
    """`repr` is the call that makes an equal part: its class and the arguments that differ.

    Every argument of `__init__` is kept under its own name. The first stands without it.
    """

    def __repr__(self) -> str:
        return call(self)


def call(part: Any, always: tuple[str, ...] = ()) -> str:
    """The call that makes an equal part.

    Args:
        part: keeps the arguments of its `__init__` under their names.
        always: arguments that are shown even where they are the default.
    """
    name = type(part).__name__
    known = signature(type(part).__init__).parameters.values()
    known = [
        p for p in known if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]
    own = [p.name for p in known[1:]]
    if not all(hasattr(part, argument) for argument in own):
        return f"{name}(…)"
    needed = {p.name: getattr(part, p.name) for p in known[1:] if p.default is Parameter.empty}
    # A default of None may stand for a part of its own.
    plain = type(part)(**needed) if len(own) > len(needed) else None
    shown: list[str] = []
    for p in known[1:]:
        value = getattr(part, p.name)
        if p.name in needed or p.name in always or differs(value, getattr(plain, p.name)):
            bare = p.name == own[0] and p.kind is Parameter.POSITIONAL_OR_KEYWORD
            shown.append(repr(value) if bare else f"{p.name}={value!r}")
    return f"{name}({', '.join(shown)})"


def differs(a: Any, b: Any) -> bool:
    """Whether two values are typed differently; 1 and 1.0 are not."""
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    return a != b if numbers else repr(a) != repr(b)
