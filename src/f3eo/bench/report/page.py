"""What every page shares: its template engine and its numbers."""

import math

import jinja2

from f3eo.bench.methods import colour, label


def render(template: str, **entries: object) -> str:
    """A template of this package filled in; a name it asks for must be given."""
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
    """A number in `digits` significant digits, without an exponent where it can be read so."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def fixed(value: float, digits: int) -> str:
    """A number with `digits` decimals, or in three significant digits where it is very large."""
    return number(value) if not abs(value) < 1e5 else f"{value:.{digits}f}"
