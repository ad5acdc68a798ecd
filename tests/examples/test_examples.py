"""The examples learn, each with three changed lines; the Trainer's goes on where it was stopped."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["trainer", "accelerated", "lightning_module"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


def example(name):
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_three_lines_change(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert re.findall(r"# (\d)\b", text) == ["1", "2", "3"]


def test_the_trainer_learns_and_goes_on_where_it_was_stopped(tmp_path):
    pytest.importorskip("accelerate")
    main = example("trainer").main
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    loss = main(str(whole))
    assert loss < 4.5  # 5.55 is chance
    shutil.copytree(whole / "checkpoint-10", stopped / "checkpoint-10")
    assert main(str(stopped)) == loss
    last = [
        load_file(folder / "checkpoint-20" / "model.safetensors") for folder in (whole, stopped)
    ]
    assert all(torch.equal(value, last[1][key]) for key, value in last[0].items())


def test_accelerate_learns():
    pytest.importorskip("accelerate")
    assert example("accelerated").main() > 0.8


def test_lightning_learns(tmp_path):
    pytest.importorskip("pytorch_lightning")
    assert example("lightning_module").main(str(tmp_path)) > 0.8
