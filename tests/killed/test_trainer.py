"""examples/trainer.py, killed while it saves or trains, ends with the bits of a whole run."""

import json
import random
import time

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from safetensors.torch import load_file

from killed.helpers import ROOT, finished, kill, start, until

EXAMPLE = ROOT / "examples/trainer.py"
WORDS = ("--save_steps", "4", "--max_steps", "12", "--logging_steps", "2")


def test_a_killed_trainer_ends_with_the_bits_of_a_whole_one(tmp_path):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    finished(start(EXAMPLE, whole, *WORDS, log=log), log=log)
    draw = random.Random(0)
    # While a checkpoint is written, the first and the second, and while it trains after one.
    for step, wait in ((4, 0.0), (8, draw.random() / 100)):
        process = start(EXAMPLE, killed, *WORDS, log=log)
        until((killed / f"checkpoint-{step}").exists, process, log=log)
        time.sleep(wait)
        kill(process)
    finished(start(EXAMPLE, killed, *WORDS, log=log), log=log)
    ends = [folder / "checkpoint-12" for folder in (whole, killed)]
    first, second = (load_file(end / "model.safetensors") for end in ends)
    assert all(torch.equal(first[name], second[name]) for name in first)
    states = [torch.load(end / "optimizer.pt", weights_only=True) for end in ends]
    assert repr(states[0]) == repr(states[1])
    histories = [json.loads((end / "trainer_state.json").read_bytes()) for end in ends]
    assert [h["loss"] for h in histories[0]["log_history"]] == [
        h["loss"] for h in histories[1]["log_history"]
    ]
