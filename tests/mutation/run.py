"""Mutation testing: is a small error in the code of a step seen by its tests?

    python tests/mutation/run.py [--sample 5] [--only fisher/metric.py] [--again] [--list]

Takes mutants of the files in targets.py, each a run of its tests in a fresh process, and adds the
outcome to results.jsonl beside this file. What is there already, for the text that the file has
now, is not run again; `--again` repeats survivors, after tests were added. docs/trust.py makes the
table. mutmut and cosmic-ray have no mutant without a factor or without `detach`, and one set of
tests for all files.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from mutants import Mutant, mutants
from targets import EXPLAINED, TARGETS

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.jsonl"
LONGEST = 600
"""Seconds that the tests of a file may take without a mutant. One that takes three times as long as
they do, and this many more, counts as killed:"""
MORE = 30


def texts() -> dict[str, tuple[str, str]]:
    """(kind of part, source) of every file."""
    return {
        name: (part, (ROOT / "src/f3eo" / name).read_text(encoding="utf-8"))
        for part, files in TARGETS.items()
        for name in files
    }


def digest(source: str) -> str:
    """Of the text of a file."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def outcomes(file: Path = RESULTS) -> dict[str, dict]:
    """The last outcome of every mutant of the files as they are, by file and key."""
    current = {name: digest(source) for name, (_, source) in texts().items()}
    rows = {}
    for line in file.read_bytes().splitlines(keepends=True) if file.exists() else []:
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            row = None  # cut where a run was killed: the mutant is run again
        if row and current.get(row["file"]) == row["source"]:
            rows[f"{row['file']} {row['key']}"] = row
    return rows


def sample(name: str, source: str, count: int | None) -> list[Mutant]:
    """The first of all mutants in an order that depends on the name of the file alone."""
    found = mutants(source)
    random.Random(name).shuffle(found)
    return found[:count]


def tested(tree: Path, tests: tuple[str, ...], seconds: float) -> tuple[str, str]:
    """Outcome and the line that says so, of tests run on a copy of the package.

    They run in a fork of this process, which has imported torch and nothing of f3eo.
    """
    said, end = tree / "said.txt", time.monotonic() + seconds
    if not (child := os.fork()):
        os.setsid()
        _serve(tree, tests, said)
    done = 0, 0
    try:
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                return "killed", f"longer than {seconds:.0f} s"
            time.sleep(0.05)
    finally:
        if not done[0]:  # too long, or this process is to end: with all that a test has started
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    words = failed[0].split(" ", 1)[1] if failed else lines[-1]
    return ("killed" if done[1] else "survived"), words[:160]


def _serve(tree: Path, tests: tuple[str, ...], said: Path) -> None:
    """Run one file of tests after the other, until one fails; never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["PYTHONPATH"] = str(tree)  # for processes that tests start
    sys.path.insert(0, str(tree))
    code = 1
    try:
        for test in tests:
            words = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--rootdir", str(ROOT)]
            if code := int(pytest.main([*words, test])):
                break
        sys.stdout.flush()
    finally:
        os._exit(code)


def attempt(
    tree: Path, name: str, source: str, mutant: Mutant, tests: tuple[str, ...], seconds: float
) -> dict:
    """Run the tests on one mutant; the row of results."""
    path, start = tree / "f3eo" / name, time.monotonic()
    path.write_text(mutant.source, encoding="utf-8")
    try:
        outcome, words = tested(tree, tests, seconds)
    finally:
        path.write_text(source, encoding="utf-8")
    return {
        "file": name,
        "key": mutant.key,
        "source": digest(source),
        "outcome": outcome,
        "line": mutant.line,
        "kind": mutant.kind,
        "before": mutant.before,
        "after": mutant.after,
        "by": words,
        "seconds": round(time.monotonic() - start, 1),
    }


def show(rows: dict[str, dict]) -> None:
    """Print the survivors that nobody has explained."""
    for name, row in sorted(rows.items()):
        if row["outcome"] == "survived" and name not in EXPLAINED:
            print(f"{name} line {row['line']} {row['kind']}: {row['before']} → {row['after']}")


def main(*words: str) -> None:
    """Run what the words ask for."""
    parser = argparse.ArgumentParser(description="Run mutants of the files in targets.py.")
    parser.add_argument("--sample", type=int, default=5, help="mutants a file; 0 for all")
    parser.add_argument("--only", nargs="*", help="files under src/f3eo; default all")
    parser.add_argument("--again", action="store_true", help="repeat survivors, and those alone")
    parser.add_argument("--list", action="store_true", help="print the survivors, run nothing")
    given = parser.parse_args(words)
    known = outcomes()
    if given.list:
        return show(known)
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # of a mutant
    sys.dont_write_bytecode = True
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "src"]
    torch.set_num_threads(1)
    allowed: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory(prefix="f3eo-mutants-") as folder:
        tree = Path(folder)
        shutil.copytree(
            ROOT / "src/f3eo", tree / "f3eo", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name, (part, source) in texts().items():
            if given.only and name not in given.only:
                continue
            tests = TARGETS[part][name]
            for mutant in sample(name, source, given.sample or None):
                row = known.get(f"{name} {mutant.key}")
                if row and not (given.again and row["outcome"] == "survived"):
                    continue
                if given.again and not row:
                    continue
                if tests not in allowed:
                    start = time.monotonic()
                    outcome, words = tested(tree, tests, LONGEST)
                    allowed[tests] = 3 * (time.monotonic() - start) + MORE
                    if outcome != "survived":
                        print(f"left out: the tests of {name} fail without a mutant: {words}")
                        allowed[tests] = 0
                if not allowed[tests]:
                    break
                row = attempt(tree, name, source, mutant, tests, allowed[tests])
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                print(f"{row['outcome']} {name}:{row['line']} {row['before']} → {row['after']}")
    show(outcomes())


if __name__ == "__main__":
    main(*sys.argv[1:])
