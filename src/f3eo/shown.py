"""`repr` of parts: the call that makes an equal part."""

from inspect import Parameter, signature
from typing import Any


class Shown:
    """Base class whose `repr` is the call that makes an equal part, without default arguments.

    A subclass keeps every argument of `__init__` as an attribute of the same name.
    """

    def __repr__(self) -> str:
        return call(self)


def call(part: Any, always: tuple[str, ...] = ()) -> str:
    """The call that makes an equal part.

    Args:
        part: an object that keeps every argument of its `__init__` as an attribute.
        always: arguments that are shown even if they have their default value.

    Returns:
        The class and its arguments, the first one without its name; "Name(…)" if an argument is not
        kept.
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
    # Attributes of a default part, since None as argument may stand for another part.
    default = type(part)(**needed) if len(own) > len(needed) else None
    shown: list[str] = []
    for p in known[1:]:
        value = getattr(part, p.name)
        if p.name in needed or p.name in always or differs(value, getattr(default, p.name)):
            positional = p.name == own[0] and p.kind is Parameter.POSITIONAL_OR_KEYWORD
            shown.append(repr(value) if positional else f"{p.name}={value!r}")
    return f"{name}({', '.join(shown)})"


def differs(a: Any, b: Any) -> bool:
    """Whether two values differ, or differ in their `repr`; 1 and 1.0 are equal."""
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    return a != b if numbers else repr(a) != repr(b)
