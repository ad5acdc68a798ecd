"""Characters: Shakespeare, then the same kind of text in other letters, then an artificial source.

The second and the third are generated, by these rules. "substituted": another third of the text
whose 26 letters are exchanged by a permutation drawn from the seed, capitals likewise; spaces and
punctuation stay. "markov": independent windows of an order-2 Markov source of spaces and small
letters: given two characters, the next one has the logits 3 z with z standard normal, drawn from
the seed. Its entropy rate is about 1.4 nats a character; no model has a lower expected loss.

The score is the accuracy of the next character, so that forgetting counts in the unit that it has
in other streams. Rows hold the loss in nats beside it.
"""

import string
from functools import partial

import torch
from torch import Tensor

from f3eo.bench.continual.streams.scores import correct
from f3eo.bench.continual.streams.stream import Stage, Stream, recent
from f3eo.bench.models.gpt import GPT
from f3eo.bench.tasks.data import shakespeare
from f3eo.bench.tasks.shakespeare import POSITIONS, apart
from f3eo.bench.tasks.task import Data, Samples, cross_entropy

THIRDS = 3
"""Parts of the text: for "shakespeare", for "substituted", for unseen substitutions."""
TRAIN = 0.9
"""Share of a part, from its start, to train on."""
UNSEEN = 2
STATES = " " + string.ascii_lowercase
"""The characters of the Markov source."""
SPREAD = 3.0
"""Deviation of its logits."""
WINDOWS, TEST_WINDOWS = 5_228, 580
"""Windows of the Markov source, as many as a third of the text has."""
BURN_IN = 50


def part(number: int) -> tuple[Tensor, str]:
    """A third of Shakespeare's text as places (N,) in its alphabet, and the sorted alphabet."""
    text = shakespeare()
    alphabet = "".join(sorted(set(text)))
    length = len(text) // THIRDS
    own = text[number * length : (number + 1) * length]
    place = {character: number for number, character in enumerate(alphabet)}
    return torch.tensor([place[character] for character in own]), alphabet


def substitution(alphabet: str, generator: torch.Generator) -> Tensor:
    """For each place in an alphabet the place of the letter that takes its turn.

    Args:
        alphabet: distinct characters, all 52 letters among them.
        generator: draws the order of the 26 letters; a capital follows its small letter.

    Returns:
        A permutation of 0 … len(alphabet) − 1, which leaves other characters where they are.
    """
    order = torch.randperm(26, generator=generator)
    table = torch.arange(len(alphabet))
    for letters in (string.ascii_lowercase, string.ascii_uppercase):
        places = torch.tensor([alphabet.index(letter) for letter in letters])
        table[places] = places[order]
    return table


def transitions(states: int, generator: torch.Generator) -> Tensor:
    """Probabilities of the next state given two, p(c | a, b) ∝ exp(3 z_abc), z standard normal.

    Args:
        states: number S.
        generator: draws z.

    Returns:
        (S, S, S): before the last, last, next.
    """
    logits = torch.randn(states, states, states, generator=generator, dtype=torch.float64)
    return (SPREAD * logits).softmax(-1)


def walk(table: Tensor, chains: int, steps: int, generator: torch.Generator) -> Tensor:
    """Independent walks of a Markov source of order 2, near its stationary distribution.

    Args:
        table: probabilities (S, S, S) as of `transitions`.
        chains: number of walks B.
        steps: length T of each; 50 earlier steps are thrown away.
        generator: draws the first two states, which are uniform, and the steps.

    Returns:
        States (B, T).
    """
    states = [*torch.randint(len(table), (2, chains), generator=generator)]
    below = table.cumsum(-1)[..., :-1].contiguous()  # rounded, the last may lie below 1
    for _ in range(BURN_IN + steps):
        draws = torch.rand(chains, 1, generator=generator, dtype=table.dtype)
        states.append((below[states[-2], states[-1]] <= draws).sum(-1))
    return torch.stack(states[-steps:], dim=1)


def entropy_rate(table: Tensor) -> float:
    """Σ_ab π(a, b) H(p(· | a, b)) in nats a state, π the stationary distribution of pairs.

    Args:
        table: probabilities (S, S, S) as of `transitions`, all above 0.
    """
    pairs = torch.full(table.shape[:2], 1 / len(table) ** 2, dtype=table.dtype)
    for _ in range(1_000):
        pairs = torch.einsum("ab,abc->bc", pairs, table)
    return float((pairs * torch.special.entr(table).sum(-1)).sum())


def _windows(text: Tensor) -> Data:
    cut = int(len(text) * TRAIN)
    return Data(apart(text[:cut]), apart(text[cut:]))


def _plain() -> Data:
    return _windows(part(0)[0])


def _substituted(number: int, generator_seed: int) -> Data:
    text, alphabet = part(number)
    table = substitution(alphabet, torch.Generator().manual_seed(generator_seed))
    return _windows(table[text])


def _markov(generator_seed: int) -> Data:
    alphabet = part(0)[1]
    generator = torch.Generator().manual_seed(generator_seed)
    table = transitions(len(STATES), generator)
    walks = walk(table, WINDOWS + TEST_WINDOWS, POSITIONS + 1, generator)
    text = torch.tensor([alphabet.index(state) for state in STATES])[walks]
    every = Samples(text[:, :-1].contiguous(), text[:, 1:].contiguous())
    return Data(Samples(*(t[:WINDOWS] for t in every)), Samples(*(t[WINDOWS:] for t in every)))


def stages(seed: int) -> list[Stage]:
    """Shakespeare; another third of it in other letters; a Markov source, from the seed."""
    return [
        Stage("shakespeare", partial(recent, _plain)),
        Stage("substituted", partial(recent, partial(_substituted, 1, seed))),
        Stage("markov", partial(recent, partial(_markov, seed))),
    ]


def unseen(seed: int) -> list[Stage]:
    """The last third of the text under two more substitutions."""
    draws = torch.randint(2**31, (UNSEEN,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [
        Stage(f"substituted {number}", partial(recent, partial(_substituted, 2, draw)))
        for number, draw in enumerate(draws, 2)
    ]


STREAMS = (
    Stream(
        name="text",
        description="Shakespeare, then in other letters, then a Markov source (both generated), "
        "5,228 windows of 64 characters each; GPT of 2 layers of 64",
        stages=stages,
        unseen=unseen,
        model=partial(GPT, POSITIONS, width=64, depth=2),
        loss=cross_entropy,
        score=correct,
        chance=0.15,  # always a space
        batch=12,
        epochs=2,
        adapt_lr=0.3,
    ),
)
