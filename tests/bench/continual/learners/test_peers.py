"""What every learner of a stream is held to."""

import importlib

import pytest
import torch

from bench.continual.learners.helpers import flat, options_of, run_stages
from f3eo.bench.continual.learners import PEERS

CERTAIN = {
    *("sgd", "adamw", "muon", "sam", "sam_shaped"),
    *("ewc", "ewc_batch", "online_ewc", "stable_ewc", "si"),
}
"""Learners that draw no numbers."""
SHORT = {"power": 1.5, "limit": 1e-5, "value": 1e-3, "every": 3}
"""Where half of the value is not allowed, or reaches nothing on so small a problem."""


@pytest.mark.parametrize("name", PEERS)
def test_a_learner_lowers_the_loss_of_the_second_stage(name):
    _, (before, after) = run_stages(name)
    assert after < 0.8 * before


@pytest.mark.parametrize("name", PEERS)
def test_the_seed_alone_decides_what_is_random(name):
    first = flat(run_stages(name)[0])
    torch.manual_seed(7)
    torch.randn(3)
    assert torch.equal(flat(run_stages(name)[0]), first)
    assert torch.equal(flat(run_stages(name, seed=1)[0]), first) == (name in CERTAIN)


@pytest.mark.parametrize("name", PEERS)
def test_every_option_has_an_effect_or_is_known_to_have_none(name):
    peer, options = PEERS[name], options_of(name)
    usual = flat(run_stages(name, stages=3)[0])  # a decay acts from the third stage on
    idle = peer.idle(options)
    for option, value in options.items():
        if isinstance(value, str):
            continue  # names of parts: tests/bench/plan/test_checks.py
        other = SHORT.get(option, value // 2 if isinstance(value, int) else 0.5 * (value or 0.2))
        changed = not torch.equal(flat(run_stages(name, stages=3, **{option: other})[0]), usual)
        assert changed == (option not in idle), (option, value, other)


def test_every_peer_says_what_it_is_and_what_is_searched():
    for name, peer in PEERS.items():
        assert peer.name == name and peer.kind in ("plain", "regularised", "memory")
        assert "lr" in peer.space and 2 <= len(peer.space) <= 4
        assert not set(peer.space) & set(peer.idle(peer.options()))
        for option, range in peer.space.items():
            assert range.low <= peer.defaults[option] <= range.high, (name, option)
        module, _, kind = peer.source.name.rpartition(".")
        assert peer.source.version and hasattr(importlib.import_module(module), kind)
    for distinct in ("label", "colour"):
        assert len({getattr(peer, distinct) for peer in PEERS.values()}) == len(PEERS)


def test_an_option_that_a_peer_does_not_have_is_refused_with_the_ones_it_has():
    with pytest.raises(ValueError, match="sgd has no option 'gamma'; it has lr, momentum"):
        PEERS["sgd"].options({"gamma": 0.5})
