"""Make the tables of docs/trust.md: tests by optimizer and check, traps, mutants.

    python docs/trust.py    # one minute: it collects the tests that the tables count

What counts for a row is in tests/trust/rows.py; mutants are run by tests/mutation/run.py.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/trust"), str(ROOT / "tests/mutation")]

from rows import CHECKS, EACH, MEASURED, SECOND_ORDER, SGD, TRAPS  # noqa: E402
from targets import EXPLAINED, TARGETS  # noqa: E402

PAGE = ROOT / "docs/trust.md"
COLUMNS = {
    "SGD": r"\b(sgd|SGD|momentum)\b",
    "AdamW": r"\b(adamw|AdamW)\b",
    "Muon": r"\b(muon|Muon)\b",
    "second order": r"\b(newton|layerwise)\b",
}
"""How the parameters of a test name an optimizer."""


def collected(names: list[str]) -> list[str]:
    """Ids of all tests under some files, folders or names of tests."""
    files = sorted({name.partition("::")[0] for name in names})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pytest cannot collect the tests of rows.py:\n{done.stdout[-2000:]}")
    return [line for line in done.stdout.splitlines() if "::" in line]


def ids_of(name: str, ids: list[str]) -> list[str]:
    """Ids of a test with all its parameters, of a file or of a folder."""
    return [i for i in ids if i == name or i.startswith((f"{name}[", f"{name}::", f"{name}/"))]


def column(kind: str, name: str, ids: list[str], title: str) -> set[str]:
    """Ids that count for an optimizer."""
    own = ids_of(name, ids)
    if kind == MEASURED:
        return set(own) if title != "second order" else set()
    if kind == SECOND_ORDER:
        return set(own) if title == "second order" else set()
    named = {i for i in own if re.search(COLUMNS[title], i.partition("[")[2])}
    if kind == SGD and title == "SGD":
        others = [r for t, r in COLUMNS.items() if t != "SGD"]
        return {i for i in own if not any(re.search(r, i.partition("[")[2]) for r in others)}
    return named if kind in (EACH, SGD) else set()


def checks(ids: list[str]) -> str:
    """The table of optimizers and checks: numbers of tests."""
    lines = [f"| check | {' | '.join(COLUMNS)} |", "|---|---|---|---|---|"]
    for row, tests in CHECKS.items():
        counts = [
            len(set().union(*[column(kind, name, ids, title) for kind, name in tests]))
            for title in COLUMNS
        ]
        lines.append(f"| {row} | {' | '.join(str(n) if n else '–' for n in counts)} |")
    return "\n".join(lines)


def traps(ids: list[str]) -> str:
    """The table of traps."""
    lines = ["| trap | here | tests |", "|---|---|---|"]
    for trap, (way, tests) in TRAPS.items():
        count = len(set().union(*[ids_of(name, ids) for name in tests]))
        lines.append(f"| {trap} | {way} | {count} |")
    return "\n".join(lines)


def mutated() -> str:
    """The table of mutants, by the kind of part."""
    from run import outcomes, sample, texts

    known, sources = outcomes(), texts()
    lines = ["| part | files | mutants | run | killed | explained | of those run |"]
    lines.append("|---|---|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for part, files in TARGETS.items():
        found: Counter[str] = Counter(files=len(files))
        for name in files:
            for mutant in sample(name, sources[name][1], None):
                row = known.get(f"{name} {mutant.key}")
                found["mutants"] += 1
                found["run"] += row is not None
                found["killed"] += row is not None and row["outcome"] == "killed"
                survived = row is not None and row["outcome"] == "survived"
                found["explained"] += survived and f"{name} {mutant.key}" in EXPLAINED
        total += found
        lines.append(_mutants(part, found))
    return "\n".join([*lines, _mutants("all", total)])


def _mutants(part: str, found: Counter[str]) -> str:
    cells = [found[name] for name in ("files", "mutants", "run", "killed", "explained")]
    told = found["run"] - found["explained"]
    share = f"{100 * found['killed'] / told:.0f} %" if told else "–"
    return f"| {part} | {' | '.join(map(str, cells))} | {share} |"


def table_of(text: str) -> list[list[str]]:
    """Cells of a table, without its header."""
    return [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def names() -> list[str]:
    """All that rows.py names."""
    named = [name for tests in CHECKS.values() for _, name in tests]
    return named + [name for _, tests in TRAPS.values() for name in tests]


def page(old: str) -> str:
    """The page with its tables made anew."""
    ids = collected(names())
    if missing := [name for name in names() if not ids_of(name, ids)]:
        raise ValueError(f"rows.py names tests that are not there: {missing}; correct the names")
    made = {"checks": checks(ids), "traps": traps(ids), "mutants": mutated()}
    for name, table in made.items():
        mark = f"<!-- {name}: python docs/trust.py -->"
        before, found, rest = old.partition(f"{mark}\n\n")
        if not found:
            raise ValueError(f"docs/trust.md has no mark {mark!r}; put it before the table")
        old = before + found + table + "\n\n" + re.sub(r"\A(\|.*\n)*", "", rest).lstrip("\n")
    return old


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
