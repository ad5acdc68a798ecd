"""A direction off several gradients at once, against a dense projection."""

import pytest
import torch

from f3eo.direction import apart


def vectors(count: int, seed: int = 0):
    torch.manual_seed(seed)
    shapes = (3, 4), (5,), ()
    return [[torch.randn(s, dtype=torch.float64) for s in shapes] for _ in range(count)]


def flat(v):
    return torch.cat([t.flatten() for t in v])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("diagonal", [False, True])
def test_it_is_the_dense_projection_in_the_metric(count, diagonal):
    h, *along = vectors(1 + count)
    metric = [t.abs() + 0.1 for t in vectors(1, seed=9)[0]] if diagonal else None
    rates = [1.0, 0.25, 0.5]
    found = flat(apart(h, along, metric, rates))
    weights = flat([torch.full_like(t, r) for t, r in zip(h, rates, strict=True)])
    weights = weights if metric is None else weights * flat(metric)
    root, columns = weights.sqrt(), torch.stack([flat(v) for v in along], 1)
    q, _ = torch.linalg.qr(root[:, None] * columns)
    truth = (root * flat(h) - q @ (q.T @ (root * flat(h)))) / root
    assert torch.allclose(found, truth, rtol=1e-12, atol=1e-13)
    for v in along:
        inner = torch.dot(flat(v), weights * found)
        assert abs(inner) <= 1e-12 * (weights.sqrt() * flat(v)).norm() * found.norm()


def test_nearly_parallel_gradients_are_both_left_alone():
    h, v, w = vectors(3)
    near = [a + 1e-4 * b for a, b in zip(v, w, strict=True)]
    found = flat(apart(h, [v, near], None, [1.0] * 3))
    for other in (v, near):
        assert abs(torch.dot(flat(other), found)) <= 1e-12 * flat(other).norm() * flat(h).norm()


def test_a_gradient_that_is_zero_or_there_twice_does_not_count():
    h, v = vectors(2)
    zero = [torch.zeros_like(t) for t in v]
    alone = flat(apart(h, [v], None, [1.0] * 3))
    assert torch.allclose(flat(apart(h, [v, zero, v], None, [1.0] * 3)), alone, atol=1e-13)


def test_what_lies_in_their_span_is_zero_and_no_noise():
    v, w = vectors(2)
    h = [2 * a - 3 * b for a, b in zip(v, w, strict=True)]
    assert not any(d.any() for d in apart(h, [v, w], None, [1.0] * 3))
