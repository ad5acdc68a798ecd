"""docs/trust.md: its tables have the rows of the mapping, and all tests they count are there."""

import importlib.util
import re
import sys

import pytest

from docs.pages import ROOT, table, text


@pytest.fixture(scope="module")
def command():
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("trust_command", ROOT / "docs/trust.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def ids(command):
    return command.collected(command.names())


def test_every_named_test_is_collected(command, ids):
    assert not [name for name in command.names() if not command.ids_of(name, ids)]
    assert not command.ids_of("tests/test_checkpoint.py::test_that_is_not_there", ids)


def test_every_row_of_what_is_asked_has_tests(command, ids):
    rows = [int(row.partition(".")[0]) for row in command.CHECKS]
    assert rows == [n for n in range(1, 17) if n not in (12, 16)]  # tables of their own
    assert len(command.TRAPS) == 17
    cells = command.table_of(command.checks(ids))
    assert all(row[1] != "–" for row in cells)
    dashes = [(row[0].partition(".")[0], i) for row in cells for i, c in enumerate(row) if c == "–"]
    assert dashes == [("3", 3), ("10", 4)]  # Muon has no foreach, second order no micro-batches
    assert all(int(row[2]) > 0 for row in command.table_of(command.traps(ids)))


def test_the_page_has_the_rows_of_the_tables(command):
    assert [row[0] for row in table("trust.md", "check")] == list(command.CHECKS)
    assert [row[:2] for row in table("trust.md", "trap")] == [
        [trap, way] for trap, (way, _) in command.TRAPS.items()
    ]


def test_tests_of_one_optimizer_count_for_no_other(command):
    ids = ["a.py::test_x[sgd-1]", "a.py::test_x[muon-1]", "a.py::test_x[newton]", "a.py::test_y"]
    ids += ["a.py::test_x[gauss-newton]", "a.py::test_x[sgd_free]", "b.py::test_x[sgd]"]
    count = {
        (kind, title): len(command.column(kind, "a.py", ids, title))
        for kind in (command.EACH, command.MEASURED, command.SGD, command.SECOND_ORDER)
        for title in command.COLUMNS
    }
    assert [count[command.EACH, t] for t in command.COLUMNS] == [1, 0, 1, 2]
    assert [count[command.MEASURED, t] for t in command.COLUMNS] == [6, 6, 6, 0]
    assert [count[command.SGD, t] for t in command.COLUMNS] == [3, 0, 1, 2]
    assert [count[command.SECOND_ORDER, t] for t in command.COLUMNS] == [0, 0, 0, 6]


def test_most_mutants_are_killed_and_survivors_are_told():
    *parts, whole = table("trust.md", "part")
    assert [row[0] for row in parts] == [
        "update rules",
        "estimators",
        "engines",
        "reduction",
        "checkpoints",
    ]
    for _, _, mutants, run, killed, explained, share in (*parts, whole):
        assert int(mutants) >= int(run) >= int(killed) + int(explained)
        told = round(100 * int(killed) / (int(run) - int(explained)))
        assert share == f"{told} %"
    assert int(re.sub(r"\D", "", whole[-1])) >= 90


def test_the_page_says_how_its_tables_are_made():
    assert text("trust.md").count(": python docs/trust.py -->") == 3
