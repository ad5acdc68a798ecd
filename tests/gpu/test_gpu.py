"""The script for a GPU runs here without one, and on a GPU where there is one."""

import importlib.util
from pathlib import Path

import pytest
import torch

from f3eo.bench.models import MODELS

FILE = Path(__file__).parent / "run.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("gpu_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = dict(MODELS)
    yield module
    MODELS.clear()  # the script adds large ones
    MODELS.update(before)


def test_every_check_runs_on_the_processor(script, capsys):
    assert script.main("--device", "cpu", "--small") == 0
    said = capsys.readouterr().out
    assert all(f"{name}: " in said for name in script.CHECKS) and len(script.CHECKS) == 6
    assert said.count("errors ") == 5


def test_a_check_that_fails_is_told(script, capsys, monkeypatch):
    def broken(*_):
        raise AssertionError("h is another one")

    monkeypatch.setattr(script, "CHECKS", {"broken": broken, "fine": lambda *_: "well"})
    assert script.main("--device", "cpu", "--small") == 1
    said = capsys.readouterr().out
    assert "broken: FAILED" in said and "h is another one" in said and "fine: well" in said
    with pytest.raises(AssertionError, match="allowed are"):
        script.near((torch.ones(2), torch.ones(2)), (torch.ones(2), 2 * torch.ones(2)), 0.1)


def test_the_large_models_have_the_sizes_they_are_named_for(script):
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in model.make().parameters())
            for name, model in script.LARGE.items()
        }
    assert 11.0e6 < sizes["resnet18"] < 11.3e6 and 80e6 < sizes["gpt2"] < 90e6
    x, y = script.text(2, torch.Generator())
    assert x.shape == y.shape == (2, 1024)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_runs_here(script, capsys):
    assert script.main() == 1
    assert "--device cpu --small" in capsys.readouterr().out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_check_runs_on_the_gpu(script):
    assert script.main() == 0
