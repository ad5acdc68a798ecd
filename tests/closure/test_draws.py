"""Random numbers come again in the passes of a recording after the first."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from f3eo.closure.draws import Draws

X = torch.ones(3, 50, dtype=torch.float64)

CLOSURES = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout of maps": lambda x: F.dropout2d(x[..., None, None], 0.3),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "fused dropout": lambda x: torch.native_dropout(x, 0.3, True)[0],
    "noise": lambda x: x + torch.randn_like(x) + torch.rand(3, 1),
    "permutation": lambda x: x.cumsum(1)[:, torch.randperm(50)],
    "in place": lambda x: torch.empty(3, 50).normal_() + x,
}


@pytest.mark.parametrize("name", CLOSURES)
def test_numbers_come_again_in_their_order_and_new_ones_after_start(name):
    closure, draws = CLOSURES[name], Draws()
    torch.manual_seed(0)
    plain = [closure(X), closure(X)]
    torch.manual_seed(0)
    with draws:
        draws.start()
        first = closure(X)
        state = torch.get_rng_state()
        with draws.again():
            second = closure(X)
        assert torch.equal(torch.get_rng_state(), state)
        draws.start()
        other = closure(X)
        with draws.again():
            assert torch.equal(closure(X), other)
    torch.testing.assert_close(second, first, rtol=1e-12, atol=0)
    assert torch.equal(first, plain[0]) and torch.equal(other, plain[1])
    assert not torch.equal(other, first)


def test_numbers_that_are_written_over_come_again_unwritten():
    draws = Draws()
    with draws:
        draws.start()
        drawn = torch.randn(5)
        kept = drawn.clone()
        drawn.zero_()
        with draws.again():
            again = torch.randn(5)
            assert torch.equal(again, kept)
            again.zero_()
        with draws.again():
            assert torch.equal(torch.randn(5), kept)


def test_what_draws_in_one_operation_or_from_a_generator_is_refused():
    with Draws(), pytest.raises(RuntimeError, match="inside of one operation"):
        nn.RReLU()(X)
    with Draws(), pytest.raises(RuntimeError, match="a generator of its own"):
        torch.randn(3, generator=torch.Generator())


def test_fused_attention_without_dropout_is_no_draw():
    q = torch.randn(1, 2, 4, 8)
    with Draws() as draws, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        draws.start()
        F.scaled_dot_product_attention(q, q, q)
        assert not draws._kept
