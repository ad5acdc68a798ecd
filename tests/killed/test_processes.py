"""examples/processes.py, killed as a whole or in part, ends with the bits of a whole run."""

import random
import re
import socket
import time

import torch

from f3eo import checkpoint
from killed.helpers import ROOT, finished, kill, start, until
from optimizer.helpers import bits

EXAMPLE, COUNT, STEPS = ROOT / "examples/processes.py", 2, 60


def group(folder, log):
    """The processes of a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = EXAMPLE, folder, STEPS
    return [start(*words, log=log, RANK=str(rank), **place) for rank in range(COUNT)]


def steps(folder, rank=0):
    """The newest step of a process's files."""
    files = folder.glob(f"step-*.{rank}-of-{COUNT}.pt") if folder.is_dir() else ()
    return max((int(re.search(r"step-(\d+)", file.name)[1]) for file in files), default=0)


def ends(folder):
    """Everything that every process has saved at the end."""
    files = [folder / f"step-{STEPS:09}.{rank}-of-{COUNT}.pt" for rank in range(COUNT)]
    return [bits(torch.load(file, weights_only=True)) for file in files]


def test_a_killed_group_ends_with_the_bits_of_a_whole_one(tmp_path):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    finished(*group(whole, log), log=log)
    draw = random.Random(1)

    both = group(killed, log)
    until(lambda: steps(killed, 1) >= 10, *both, log=log)
    time.sleep(draw.random() / 50)
    for process in both:
        kill(process)

    both = group(killed, log)
    until(lambda: steps(killed) >= 30, *both, log=log)
    time.sleep(draw.random() / 50)
    kill(both[1])
    assert both[0].wait(timeout=90) == 1  # it does not wait for the other for ever
    reached = steps(killed)
    assert reached < STEPS

    file = killed / f"step-{reached:09}.1-of-{COUNT}.pt"  # as a power failure may leave it
    before = file.read_bytes() if file.exists() else b""
    file.write_bytes(before[: len(before) // 2])
    finished(*group(killed, log), log=log)
    assert f"{file.name} in {killed} is damaged" in log.read_text()
    assert ends(killed) == ends(whole)
    assert not checkpoint.is_whole(file.with_name("no such file"))
    kept = torch.load(killed / f"step-{STEPS:09}.0-of-{COUNT}.pt", weights_only=True)
    assert {"model", "optimizer", "random"} == kept.keys()
