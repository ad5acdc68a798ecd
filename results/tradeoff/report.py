"""The table of docs/streams.md at an equal last task, from rows.jsonl.

PYTHONPATH=src python results/tradeoff/report.py
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from f3eo.bench.continual.report.differences import Difference, corrected, difference
from f3eo.bench.continual.report.measure import signed
from f3eo.bench.continual.report.names import label
from f3eo.bench.report.cells import format_p

HERE = Path(__file__).parent
FRESH = "result"

Row = dict[str, Any]


def rows() -> list[Row]:
    """The stored rows."""
    lines = (HERE / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def of(found: list[Row], learner: str, name: str) -> list[float]:
    """A number in % of a learner on the test sets, by seed."""
    own = sorted(
        (r["seed"], r[name]) for r in found if (r["learner"], r["kind"]) == (learner, FRESH)
    )
    return [100 * value for _, value in own]


def against_sgd(found: list[Row]) -> dict[str, tuple[Difference, Difference]]:
    """Less forgetting than SGD, p corrected over all learners, and the last task less SGD's."""
    learners = dict.fromkeys(r["learner"] for r in found if r["kind"] == FRESH)
    pairs = {}
    for learner in learners:
        if learner != "sgd":
            for name, sign in (("forgetting", -1), ("last", 1)):
                sides = zip(of(found, learner, name), of(found, "sgd", name), strict=True)
                one = difference([sign * (a - b) for a, b in sides])
                assert one is not None
                pairs[learner, name] = one
    less = corrected({at: d for at, d in pairs.items() if at[1] == "forgetting"})
    return {name: (d, pairs[name, "last"]) for (name, _), d in less.items()}


def table(found: list[Row]) -> list[str]:
    """Lines of the table."""
    base = fmean(of(found, "sgd", "forgetting"))
    lines = [
        "| learner | average accuracy | forgetting | less than SGD | p | last task, less SGD's |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| SGD | {fmean(of(found, 'sgd', 'average')):.2f} | {base:.2f} | | | |",
    ]
    for learner, (less, last) in against_sgd(found).items():
        cells = (
            label(learner),
            f"{fmean(of(found, learner, 'average')):.2f}",
            f"{fmean(of(found, learner, 'forgetting')):.2f}",
            f"{100 * less.mean / base:.0f} %",
            format_p(less.p),
            f"{signed(last.mean, 2)} ({signed(last.low, 2)} … {signed(last.high, 2)})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(rows())))
