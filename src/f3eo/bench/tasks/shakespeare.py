"""Tiny Shakespeare by characters: nanoGPT's recipe for a CPU, and a shorter one."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from f3eo.bench.models.gpt import GPT
from f3eo.bench.tasks import data
from f3eo.bench.tasks.task import Data, Samples, Task

POSITIONS = 64
TRAIN = 0.9
"""Share of the text, from its start, to train on; the rest is the test set."""


class Text(Data):
    """Windows of a text; validation holds out a contiguous part, so that no windows overlap it."""

    def validation(self, seed: int, share: float = 0.1) -> "Text":
        """Hold out a contiguous part of the training text; the two ends of the rest are joined.

        Args:
            seed: determines where the part begins.
            share: share of the training text that is held out, in (0, 1); default 0.1.
        """
        text = torch.cat([self.train.x[:, 0], self.train.x[-1, 1:], self.train.y[-1, -1:]])
        start = int(torch.randint(len(text), (), generator=torch.Generator().manual_seed(seed)))
        text, held_out = text.roll(-start), int(len(text) * share)
        return self._replace(train=sliding(text[held_out:]), test=apart(text[:held_out]))


def sliding(text: Tensor) -> Samples:
    """All windows of a text (N,), and the next characters as labels: views (N − 64, 64)."""
    return Samples(text[:-1].unfold(0, POSITIONS, 1), text[1:].unfold(0, POSITIONS, 1))


def apart(text: Tensor) -> Samples:
    """Windows without overlap: every character but the first is predicted once."""
    return Samples(
        text[:-1].unfold(0, POSITIONS, POSITIONS), text[1:].unfold(0, POSITIONS, POSITIONS)
    )


def load() -> Data:
    """The text as indices into its sorted alphabet of 65 characters."""
    text = data.shakespeare()
    place = {character: number for number, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([place[character] for character in text])
    cut = int(len(codes) * TRAIN)
    return Text(sliding(codes[:cut]), apart(codes[cut:]))


SHORT = Task(
    name="shakespeare-char",
    description="Tiny Shakespeare, characters; GPT of 2 layers of 64, 64 positions",
    load=load,
    model=partial(GPT, POSITIONS, width=64, depth=2),
    batch=12,
    budget=1_000,
    base="adamw",
    target=2.1,
    score="loss",
    evaluations=10,
    probe=16,
    curve_test=150,
)

WHOLE = replace(
    SHORT,
    name="shakespeare-char-2000",
    description="Tiny Shakespeare, characters; nanoGPT's recipe for a processor (its loss: 1.88)",
    model=partial(GPT, POSITIONS),
    budget=2_000,
    target=1.88,
)

TASKS = (SHORT, WHOLE)
