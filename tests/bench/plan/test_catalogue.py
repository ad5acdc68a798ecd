import json
import sys

import pytest

from f3eo import cli
from f3eo.bench.methods import METHODS


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs `f3eo methods` in this process; returns its exit code and what it wrote."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", "methods", *map(str, words)])
        try:
            code = cli.main()
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        return code, " ".join((streams.out + streams.err).split())

    return run


def test_methods_are_listed_with_counted_cost_and_what_is_wrong_with_them(typed, tmp_path):
    file = tmp_path / "methods.json"
    code, text = typed("--methods", "sgd", "sam", "bsam", "--json", file)
    assert code == 0
    assert "1 sharpness-aware" in text and "pytorch_optimizer.SAM" in text
    assert "bsam: raises in its first step: RuntimeError" in text
    assert "bsam: step(closure) raises where no gradient was taken" in text
    assert text.count("sound") == 2 and "time" not in text.split("sgd")[0]
    lines = {line["name"]: line for line in json.loads(file.read_text())}
    assert lines["sam"]["gradient_equivalents"] == 2 and lines["sam"]["calls"] == 2
    assert lines["sam"]["space"]["rho"] == [0.02, 0.5]
    assert lines["bsam"]["gradient_equivalents"] is None and lines["bsam"]["problems"]
    assert lines["sgd"]["version"].startswith("2.") and lines["sgd"]["class"] == "torch.optim.SGD"
    assert lines["sgd"]["time_ratio"] is None


def test_time_is_measured_if_asked_for(typed, tmp_path):
    file = tmp_path / "methods.json"
    code, text = typed("--methods", "sgd", "--measure", "--json", file)
    assert code == 0 and "time" in text.split("sgd")[0]
    (line,) = json.loads(file.read_text())
    assert 0.3 < line["time_ratio_low"] <= line["time_ratio"] <= line["time_ratio_high"]


def test_a_package_that_is_missing_is_said_to_be(typed, monkeypatch):
    source = METHODS["ivon"].source

    def build(*_):
        raise ModuleNotFoundError("No module named 'ivon'")

    absent = type(source)("no-such-package", source.name, source.paper, source.extra)
    changed = {**vars(METHODS["ivon"]), "source": absent, "build": build}
    monkeypatch.setitem(METHODS, "ivon", type(METHODS["ivon"])(**changed))
    code, text = typed("--methods", "ivon")
    assert code == 0 and "ivon.IVON missing" in text and "No module named 'ivon'" in text
    assert "pip install 'f3eo[ivon]'" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["--methods", "adamax"], "unknown method 'adamax'; choose from all, sgd"),
        (["--json", "/no/such/folder/x.json"], "json must be a file in a folder that exists"),
    ],
)
def test_bad_input_is_an_error_that_names_the_cure(typed, words, message):
    code, text = typed(*words)
    assert code == 2 and message in text
