import math
import string

import pytest
import torch

from f3eo.bench.continual.streams import text
from f3eo.bench.continual.streams.text import (
    STREAMS,
    entropy_rate,
    part,
    substitution,
    transitions,
    walk,
)
from f3eo.bench.tasks.data import shakespeare

TEXT = STREAMS[0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_thirds_of_the_text_follow_one_another(small_data):
    alphabet = part(0)[1]
    together = "".join(alphabet[place] for number in range(3) for place in part(number)[0])
    assert text.shakespeare().startswith(together) and len(alphabet) == 65


def test_letters_are_exchanged_and_capitals_follow(small_data):
    alphabet = part(0)[1]
    table = substitution(alphabet, generator())
    assert sorted(table.tolist()) == list(range(65))
    for place, other in enumerate(table.tolist()):
        before, after = alphabet[place], alphabet[other]
        if before in string.ascii_lowercase:
            capital = table[alphabet.index(before.upper())]
            assert after in string.ascii_lowercase and alphabet[capital] == after.upper()
        elif before not in string.ascii_uppercase:
            assert before == after
    assert not torch.equal(table, substitution(alphabet, generator(1)))


def test_stages_are_plain_substituted_and_drawn(small_data):
    plain, substituted, drawn = (stage.load() for stage in TEXT.stages(4))
    first, alphabet = part(0)
    length = len(plain.train.x) * 64
    assert torch.equal(plain.train.x.flatten(), first[:length])
    assert torch.equal(plain.train.y.flatten(), first[1 : length + 1])
    table = substitution(alphabet, generator(4))
    assert torch.equal(substituted.train.x.flatten(), table[part(1)[0]][:length])
    characters = {alphabet[place] for place in drawn.train.x.unique()}
    assert characters == set(" " + string.ascii_lowercase)
    assert drawn.train.x.shape == (text.WINDOWS, 64)
    assert drawn.test.y.shape == (text.TEST_WINDOWS, 64)
    assert torch.equal(drawn.train.x[:, 1:], drawn.train.y[:, :-1])


def test_unseen_texts_are_of_the_last_third_in_other_letters(small_data):
    last = part(2)[0]
    tables = []
    for stage in TEXT.unseen(4):
        windows = stage.load().train.x
        pairs = {(int(a), int(b)) for a, b in zip(last, windows.flatten(), strict=False)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        tables.append(pairs)
    assert tables[0] != tables[1]


def test_transitions_are_probabilities_with_the_promised_logits():
    table = transitions(20, generator())
    torch.testing.assert_close(table.sum(-1), torch.ones(20, 20, dtype=torch.float64))
    logits = table.log() - table.log().mean(-1, keepdim=True)
    assert abs(logits.std() - 3.0) < 0.15  # the mean of 20 logits takes its share


def test_the_entropy_rate_of_known_sources():
    """Independent draws: H(p). Order 1: Σ π_b H(p(· | b)), π of (.9 .1; .5 .5) is 5/6, 1/6."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert entropy_rate(p.expand(3, 3, 3)) == pytest.approx(-(p * p.log()).sum().item())
    order_1 = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    known = 5 / 6 * -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) + math.log(2) / 6
    assert entropy_rate(order_1.expand(2, 2, 2)) == pytest.approx(known)


def test_a_walk_follows_its_table_and_the_table_has_the_least_loss():
    table = transitions(27, generator())
    states = walk(table, 4_000, 50, generator(1))
    before, last, now = states[:, :-2], states[:, 1:-1], states[:, 2:]
    assert states.shape == (4_000, 50)
    assert abs(-table[before, last, now].log().mean() - entropy_rate(table)) < 0.015  # 5 deviations
    counts = torch.zeros(27, 27, 27)
    counts.index_put_((before, last, now), torch.ones(()), accumulate=True)
    times = counts.sum(-1, keepdim=True)
    usual = (times * table > 20) & (times * (1 - table) > 20)
    errors = (counts - times * table) / (times * table * (1 - table)).sqrt()
    assert usual.sum() > 1_000 and errors[usual].abs().max() < 5
    assert abs(errors[usual].square().mean() - 1) < 0.1


def test_the_published_text_in_the_promised_sizes(needs_data):
    for stage in (*TEXT.stages(0), *TEXT.unseen(0)):
        data = stage.load()
        assert data.train.x.shape == (5_228, 64) and data.test.x.shape == (580, 64)
    spaces = sum(character == " " for character in shakespeare()) / len(shakespeare())
    assert abs(spaces - TEXT.chance) < 0.01
    rates = [entropy_rate(transitions(27, generator(seed))) for seed in range(3)]
    assert all(abs(rate - 1.4) < 0.05 for rate in rates)
