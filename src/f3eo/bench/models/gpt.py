"""A character-level language model of the kind trained on tiny-shakespeare."""

from functools import partial

import torch
from torch import Tensor, nn

from f3eo.bench.models.model import Model
from f3eo.bench.models.transformer import Block

VOCABULARY, WIDTH, HEADS, DEPTH = 65, 128, 4, 4


class GPT(nn.Module):
    """Causal transformer with learned positions and an untied head.

    Args:
        positions: length of the longest text, in characters.
        width: features per position, a multiple of the 4 heads; default 128.
        depth: number of blocks; default 4.
    """

    def __init__(self, positions: int, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width, HEADS, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Characters (B, T) -> logits of the next ones (B, T, VOCABULARY)."""
        place = torch.arange(x.shape[1], device=x.device)
        x = self.characters(x) + self.positions(place)
        return self.head(self.norm(self.blocks(x)))


def _text(positions: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random characters (B, T) and the next character at each position (B, T)."""
    text = torch.randint(VOCABULARY, (samples, positions + 1), generator=generator)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def _row(name: str, positions: int, batch: int) -> Model:
    label = f"GPT, {DEPTH} layers of {WIDTH}, {positions} positions"
    return Model(name, label, batch, partial(GPT, positions), partial(_text, positions))


GPT64 = _row("gpt", 64, 12)
GPT256 = _row("gpt256", 256, 4)
