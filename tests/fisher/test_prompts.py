"""Prompts made once, from one row of indices that were repeated for every sample, as by peft.

Against the loop over single samples, in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exact import check

ROWS = {  # of indices (B, T), the same in every row
    "slice": lambda i: i[:1],
    "moved": lambda i: i.to(torch.float32).long().contiguous()[:1],
    "number": lambda i: i[-1].unsqueeze(0),
    "pair": lambda i: i[-1:, :],
}
TABLES = {
    "expanded": lambda tokens, count: tokens.unsqueeze(0).expand(count, -1),
    "repeated": lambda tokens, count: tokens.repeat(count, 1),
}


class Prompted(nn.Module):
    """Learned tokens before the given ones, through an encoder or none; attention; head."""

    def __init__(self, tokens, row, table, encoder=None):
        super().__init__()
        self.prompt = nn.Embedding(tokens, 6)
        self.encoder = encoder
        self.words = nn.Embedding(11, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)
        self.tokens = torch.arange(tokens)  # no buffer: a tensor from nowhere
        self.row, self.table = row, table

    def forward(self, words):
        index = self.row(self.table(self.tokens, len(words)))
        prompt = self.prompt(index)
        if self.encoder is not None:
            prompt = self.encoder(prompt)[0]
        x = torch.cat([prompt.repeat(len(words), 1, 1), self.words(words)], 1)
        return self.head(self.attention(x, x, x, need_weights=False)[0].tanh().mean(1))


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_exact(model, count):
    words, y = torch.randint(11, (count, 5)), torch.randint(3, (count,))
    check(model, lambda i, y: F.cross_entropy(model(i), y, reduction="none"), words, y)


@pytest.mark.parametrize("tokens", [3, 4, 8])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("row", ROWS)
def test_one_row_of_repeated_indices_is_a_constant(row, table, tokens):
    assert_exact(Prompted(tokens, ROWS[row], TABLES[table]), count=4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("tokens", [3, 5])
def test_a_prompt_through_a_recurrent_encoder(kind, tokens):
    """As many tokens as samples, too."""
    encoder = kind(6, 3, bidirectional=True, batch_first=True)
    assert_exact(Prompted(tokens, ROWS["slice"], TABLES["expanded"], encoder), count=3)


def test_all_rows_of_repeated_indices_stay_the_samples():
    """Segment ids: every sample's own row, also where they are reordered or cut."""
    segments, words = nn.Embedding(2, 6), nn.Embedding(11, 6)
    ids = torch.tensor([0, 0, 1, 1, 1, 0])

    def closure(i):
        table = ids.unsqueeze(0).expand(len(i), -1)
        x = words(i) + segments(table[:, :5]) * segments(table[torch.arange(len(i))][:, 1:])
        return x.tanh().flatten(1).sum(1).square()

    check(nn.ModuleList([segments, words]), closure, torch.randint(11, (4, 5)))


def test_one_row_of_the_samples_still_mixes_them():
    model = nn.Embedding(11, 6)

    def first(i):
        return (model(i) * model(i[:1])).tanh().flatten(1).sum(1)

    with pytest.raises(ValueError, match="mixes the 4 samples"):
        check(model, first, torch.randint(11, (4, 5)))
