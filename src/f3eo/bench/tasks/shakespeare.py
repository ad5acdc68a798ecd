"""Tiny Shakespeare, character by character: nanoGPT's recipe for a processor."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from f3eo.bench.models.gpt import GPT
from f3eo.bench.tasks import data
from f3eo.bench.tasks.task import Data, Samples, Task

POSITIONS = 64
TRAIN = 0.9
"""Share of the text, from its start, that is trained on; the rest is the test."""


class Text(Data):
    """Windows of a text; a part held out is a stretch of it, so that no window overlaps another."""

    def validation(self, seed: int, share: float = 0.1) -> "Text":
        """Hold out a stretch of the training text, the ends of what is left joined.

        Args:
            seed: decides where it begins.
            share: part of the training text held out, in (0, 1); default 0.1.
        """
        text = torch.cat([self.train.x[:, 0], self.train.x[-1, 1:], self.train.y[-1, -1:]])
        start = int(torch.randint(len(text), (), generator=torch.Generator().manual_seed(seed)))
        text, held_out = text.roll(-start), int(len(text) * share)
        return self._replace(train=sliding(text[held_out:]), test=apart(text[:held_out]))


def sliding(text: Tensor) -> Samples:
    """Every window of a text (N,) and the characters after each, (N − 64, 64) both; views."""
    return Samples(text[:-1].unfold(0, POSITIONS, 1), text[1:].unfold(0, POSITIONS, 1))


def apart(text: Tensor) -> Samples:
    """Windows side by side: every character but the first is predicted once."""
    return Samples(
        text[:-1].unfold(0, POSITIONS, POSITIONS), text[1:].unfold(0, POSITIONS, POSITIONS)
    )


def load() -> Data:
    """The text as places in its sorted alphabet of 65."""
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
