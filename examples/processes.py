"""Several processes: a small network learns scikit-learn's digits, and goes on where it was killed.

    torchrun --nproc-per-node 2 examples/processes.py FOLDER [STEPS]

Each process has its own file of a checkpoint. What a run needs to go on bit for bit is in it: the
model, the optimizer with its base and its generator, the random state, and the number of steps,
from which the place in the data follows.
"""

import sys
from datetime import timedelta

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import distributed as dist
from torch import nn

from f3eo import F3EO, checkpoint

SIZE, EVERY = 32, 10
"""Samples of a batch on all processes together; steps from one checkpoint to the next."""


def places(step: int, samples: int) -> torch.Tensor:
    """Places of the batch of a step; every epoch has an order of its own."""
    epoch, part = divmod(step, samples // SIZE)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(epoch))
    return order[part * SIZE : (part + 1) * SIZE]


def main(folder: str, steps: int = 60) -> float:
    """Train, and return the accuracy on digits that were held out."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, count = dist.get_rank(), dist.get_world_size()
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    generator = torch.Generator().manual_seed(rank)
    optimizer = F3EO(model, torch.optim.AdamW, lr=3e-3, fraction=0.5, every=2, generator=generator)
    torch.manual_seed(rank)  # masks of dropout are others on every process

    first = 0
    if found := checkpoint.load(folder):
        first, state = found
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
    for step in range(first, steps):
        own = places(step, 1400)[rank::count]
        optimizer.step(lambda x, y: F.cross_entropy(model(x), y, reduction="none"), x[own], y[own])
        optimizer.zero_grad()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
            }
            checkpoint.save(folder, state, step + 1)
    model.eval()
    with torch.no_grad():
        accuracy = float((model(x[1400:]).argmax(1) == y[1400:]).float().mean())
    if rank == 0:
        print(f"accuracy {accuracy:.3f} after {steps} steps, {steps - first} of them in this start")
    dist.destroy_process_group()
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
