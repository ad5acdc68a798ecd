"""Rows of older versions are read in the names of this one, and resumed."""

import copy
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from f3eo.bench.execute import archive, resume
from f3eo.bench.execute.store import Store
from f3eo.bench.methods import METHODS
from f3eo.bench.price.prices import step_kind
from f3eo.bench.run.row import restore
from f3eo.bench.run.run import Run

STUDY = Path(__file__).parents[3] / "results/euclidean"
OPTIONS = {
    "lr": 0.03,
    "momentum": 0.9,
    "weight_decay": 0.000329,
    "value": 0.3,
    "fraction": 0.25,
    "every": 5,
    "base": "sgd",
    "estimator": "compiled",
    "power": 1.0,
    "rule": "decoupled",
    "weight": "fitted",
    "ratio": 0.1,
}
LATER = {"metric": "euclidean", "residuals": "free", "limit": 1.0}
"""What came later, by the values that runs had then."""
STORED = {
    "key": "26d8b550531bc5a6",  # as version 0.1 wrote it into results/euclidean
    "task": "mnist1d-mlp",
    "method": "f3eo",
    "variant": "sensitivity decoupled",
    "seed": 1,
    "config": {
        "budget": 10000,
        "batch": 100,
        "evaluations": 25,
        "probe": 1000,
        "split": "test",
        "price": 1.655,
        "options": OPTIONS,
    },
    "status": "diverged",
    "error": "no number",
    "traceback": None,
    "steps": 6042,
    "gradient_equivalents": 1.05,
    "final": None,
    "curve": None,
    "warnings": [],
    "versions": {},
    "machine": {},
}


def of_version(version):
    """The row as this version wrote it; both have one key."""
    row = copy.deepcopy(STORED)
    options = row["config"]["options"]
    if version != "0.1":
        options["strength"] = options.pop("weight")
    return row


VERSIONS = ("0.1", "0.2")


def run_of(row):
    """The run that this version makes of a row's entries."""
    place = {name: row[name] for name in ("task", "method", "seed", "variant")}
    return Run(**place, **row["config"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stored_row_has_the_names_of_this_version_and_its_key(version):
    stored = of_version(version)
    before = copy.deepcopy(stored)
    row = restore(stored)
    options = row["config"]["options"]
    assert options.keys() == METHODS["f3eo"].defaults.keys()
    known = {n: v for n, v in OPTIONS.items() if n != "weight"}
    assert options == {**known, "strength": "fitted", **LATER}
    assert row["key"] == STORED["key"] == run_of(row).key
    assert row["variant"] == STORED["variant"] and before == stored
    assert restore(row) == row


@pytest.mark.parametrize("label", ["weight=cap", "strength=cap"])
def test_the_label_of_a_variant_is_renamed_and_its_key_stays(label):
    row = restore(STORED | {"variant": label, "key": "5f725015b7972428"})
    assert row["variant"] == "strength=cap"
    assert run_of(row).key == row["key"]


def test_a_stored_row_trains_as_it_did():
    """Parts that its options do not name are those of its version, not today's defaults."""
    method, options = METHODS["f3eo"], restore(STORED)["config"]["options"]
    options = {**options, "estimator": "per_sample"}  # which is not compiled
    optimizer = method.build(torch.nn.Linear(3, 2), method.options(options), 0).optimizers[0]
    assert repr(optimizer.estimator) == "PerSample()"
    assert repr(optimizer.strength) == "Fitted(0.3)" and optimizer.strength.limit == 1


TODAY = [{"metric": "rows"}, {"residuals": "held"}, {"limit": 3.0}]


@pytest.mark.parametrize("change", TODAY, ids=str)
def test_a_row_of_today_has_a_key_of_its_own_and_keeps_its_options(change):
    stored = of_version("0.2")
    stored["config"]["options"] |= {**LATER, **change}
    row = restore(stored)
    assert row == stored
    assert run_of(row).key not in (STORED["key"], *(key_of(c) for c in TODAY if c != change))


def key_of(change):
    row = restore(STORED)
    row["config"]["options"] |= change
    return run_of(row).key


def test_the_default_of_today_is_no_run_of_an_older_version():
    """Neither under its key, nor by the price of its steps."""
    before, place = restore(STORED), STORED["config"]
    today = METHODS["f3eo"].options({name: OPTIONS[name] for name in ("lr", "weight_decay")})
    run = run_of(before | {"config": {**place, "options": today}})
    assert run.key != before["key"] and step_kind(run) != step_kind(run_of(before))


def test_other_methods_keep_their_names():
    other = STORED | {"method": "sgd", "variant": "weight=cap"}
    assert restore(other) == other


@pytest.mark.parametrize("stored", [None, {}, STORED | {"seed": "1"}])
def test_what_is_no_row_is_refused(stored):
    with pytest.raises((ValueError, TypeError)):
        restore(stored)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["lines", "table"])
def test_a_study_of_an_older_version_is_resumed(tmp_path, monkeypatch, kind, version):
    stored = of_version(version)
    if kind == "lines":
        (tmp_path / "results.jsonl").write_text(json.dumps(stored) + "\n")
    else:
        archive.write([stored], tmp_path / "results.parquet")
    monkeypatch.setattr(resume, "execute", lambda *_: pytest.fail("trained again"))
    run = run_of(restore(STORED))
    console = Console(file=io.StringIO())
    carried = resume.carry_out([run], Store(tmp_path), console, workers=1, command="")
    assert (carried.missing, carried.trained) == (0, 0)
    assert [row["key"] for row in carried.rows] == [run.key]


@pytest.mark.parametrize("name", ["study", "noise", "euclidean", "usual-base", "mnist1d-study"])
def test_committed_rows_have_the_names_of_this_version(name):
    for file in (STUDY.parent / name).glob("*.parquet"):
        rows = archive.read(file)
        assert rows and len({row["key"] for row in rows}) == len(rows)
        for row in rows:
            options = row["config"]["options"]
            assert "weight" not in options and not row.get("variant", "").startswith("weight")
            if set(options) == set(METHODS["f3eo"].defaults) and "price" in row["config"]:
                labelled_by_hand = "searched" in row["variant"]
                assert (row["key"] == run_of(row).key) != labelled_by_hand


def test_prices_of_an_older_study_are_found():
    prices = json.loads((STUDY / "prices.json").read_text())["prices"]
    rows = [row for row in archive.read(STUDY / "results.parquet") if row["method"] == "f3eo"]
    kinds = {step_kind(run_of(row)) for row in rows}
    assert kinds and kinds <= set(prices)
