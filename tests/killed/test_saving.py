"""A process that is killed while it writes checkpoints leaves a whole one, at whatever moment."""

import random
import time

import torch

from f3eo import checkpoint
from killed.helpers import kill, start, until

PROGRAM = """
import sys, torch
from f3eo import checkpoint
first = (checkpoint.load(sys.argv[1]) or (0, None))[0]
for step in range(first + 1, 10**9):
    state = {"weights": torch.full((200_000,), float(step)), "step": step}
    checkpoint.save(sys.argv[1], state, step)
    print(step)
"""


def test_killed_again_and_again_while_it_saves(tmp_path):
    folder, log, draw = tmp_path / "run", tmp_path / "log", random.Random(0)
    log.touch()
    before = 0
    for _ in range(3):
        size = log.stat().st_size
        process = start("-c", PROGRAM, folder, log=log)
        until(lambda size=size: log.stat().st_size > size, process, log=log)
        time.sleep(draw.random() / 5)
        kill(process)
        step, state = checkpoint.load(folder)
        assert step > before and state["step"] == step
        assert torch.equal(state["weights"], torch.full((200_000,), float(step)))
        assert step >= int(log.read_text().splitlines()[-1])  # what was told is on the disk
        before = step
