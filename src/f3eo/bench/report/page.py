"""The template engine of every page, and its number formats."""

import math

import jinja2

from f3eo.bench.methods import colour, label


def render(template: str, **entries: object) -> str:
    """Fill in a template of this package.

    Args:
        template: file name in `templates`.
        entries: the template's variables.

    Raises:
        jinja2.UndefinedError: the template reads a variable that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("f3eo.bench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "fixed": fixed}
    environment.globals |= {"colour": colour, "label": label}
    return environment.get_template(template).render(**entries)


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits; exponents outside [1e-3, 1e6), "–" if infinite."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def fixed(value: float, digits: int) -> str:
    """A number with `digits` decimals, or with three significant digits from 1e5 on."""
    return number(value) if not abs(value) < 1e5 else f"{value:.{digits}f}"
