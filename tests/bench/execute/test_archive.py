import numpy as np
import polars as pl
import pytest

from f3eo.bench.execute import archive
from f3eo.bench.execute.disk import Damaged
from f3eo.bench.execute.resume import is_compatible
from f3eo.bench.execute.store import Store


@pytest.fixture
def rows(make_row):
    """One of each status, with and without what only some rows have."""
    finished = make_row(0.7, seed=1) | {
        "best": {"test_accuracy": 0.75},
        "target": {"reached": True, "step": 10, "gradients": 20.0, "seconds": 0.5},
    }
    missed = make_row(0.3, seed=2, variant="every=2", price=2.0) | {
        "best": {"test_accuracy": 0.35},
        "target": {"reached": False, "step": None, "gradients": None, "seconds": None},
        "warnings": ["mind the step"],
    }
    nothing = {"final": None, "best": None, "target": None, "steps": None}
    diverged = make_row(seed=3) | nothing | {"status": "diverged", "error": "no number"}
    failed = make_row(seed=4) | nothing | {"curve": None, "status": "failed", "traceback": "…"}
    return [finished, missed, diverged, failed]


def single(row):
    """As archived: curves in single precision."""
    curve = row["curve"] and {
        name: [float(np.float32(value)) for value in values]
        for name, values in row["curve"].items()
    }
    return row | {"curve": curve}


def test_rows_come_back_as_they_were(rows, tmp_path):
    archive.write(rows, tmp_path / "rows.parquet")
    assert archive.read(tmp_path / "rows.parquet") == [single(row) for row in rows]
    assert archive.read(tmp_path / "none.parquet") == []


@pytest.mark.parametrize("some", [slice(0), slice(1), slice(2, 4), slice(3, 4)])
def test_few_rows_come_back_too(rows, tmp_path, some):
    archive.write(rows[some], tmp_path / "rows.parquet")
    assert archive.read(tmp_path / "rows.parquet") == [single(row) for row in rows[some]]


def test_numbers_are_columns_that_can_be_computed_with(rows, tmp_path):
    archive.write(rows, tmp_path / "rows.parquet")
    frame = pl.read_parquet(tmp_path / "rows.parquet")
    assert frame["final.test_accuracy"].max() == 0.7
    assert frame["curve.test_accuracy"].list.len().to_list()[:3] == [2, 2, 2]


@pytest.mark.parametrize("kind", ["cut", "empty", "other"])
def test_a_damaged_table_is_named_and_stays(rows, tmp_path, kind):
    path = tmp_path / "results.parquet"
    archive.write(rows, path)
    if kind == "other":
        pl.DataFrame({"key": ["a"]}).write_parquet(path)
    else:
        path.write_bytes(path.read_bytes()[: 200 if kind == "cut" else 0])
    before = path.read_bytes()
    with pytest.raises(Damaged, match=f"{path} is damaged .*; put the original back, or move"):
        Store(tmp_path).arrange(always, always)
    assert path.read_bytes() == before


def always(row):
    return True


def test_the_table_alone_is_enough_to_resume_from(rows, tmp_path):
    store = Store(tmp_path, "trials")
    for row in rows:
        store.append(row)
    store.compact(store.arrange(always, always)[0])
    store.results.unlink()
    again, aside = Store(tmp_path, "trials").arrange(always, always)
    assert again == [single(row) for row in rows] and aside == 0
    assert len(store.results.read_text().splitlines()) == 4


def test_newer_lines_count_and_what_was_set_aside_stays_there(rows, tmp_path, make_run):
    store = Store(tmp_path)
    store.append(rows[0])
    store.compact([rows[0]])
    newer = rows[0] | {"command": "newer"}
    store.append(newer)
    assert store.arrange(always, always)[0] == [newer]
    other = [make_run(options={"lr": 9.0})]
    for _ in range(2):
        assert store.arrange(lambda row: is_compatible(row, other), always)[0] == []
    assert store.earlier.exists() and not store.results.read_text()
