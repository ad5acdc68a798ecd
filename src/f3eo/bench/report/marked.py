"""Tables in a page of the documentation, between two marks."""

from collections.abc import Sequence
from pathlib import Path

from f3eo.bench.execute import disk

BEGIN, END = "<!-- tables of the study -->", "<!-- end of the tables -->"
"""What stands around the tables in the page."""


def write_marked(path: Path, tables: Sequence[str]) -> None:
    """Put tables into a page, in the place of what stands between BEGIN and END.

    Args:
        path: the page; what is outside the two marks stays as it is.
        tables: lines of Markdown.

    Raises:
        ValueError: the page does not have the two marks, once each and in this order.
    """
    with disk.named(path):
        page = path.read_text(encoding="utf-8")
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended) or BEGIN in rest or END in after or END in before:
        raise ValueError(
            f"{path} must have the lines {BEGIN!r} and {END!r} once each, in this order: add them "
            "where the tables shall be"
        )
    disk.write(path, f"{before}{BEGIN}\n\n" + "\n".join(tables) + f"\n\n{END}{after}")
