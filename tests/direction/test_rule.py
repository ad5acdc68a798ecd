import pytest
import torch

from f3eo import Coupled, Decoupled, Fixed, Ratio
from f3eo.direction import InnerProducts, Update, combine, together
from f3eo.extend import DecoupledPerTensor, Direct


def vectors(seed=0, sizes=(3, 1, 5), scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        [scale * torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]
        for _ in range(2)
    ]


def products(g, h, d=None):
    d = d if d is not None else [torch.ones_like(x) for x in g]
    return [
        InnerProducts(float(a @ (w * a)), float(a @ (w * b)), float(b @ (w * b)))
        for a, b, w in zip(g, h, d, strict=True)
    ]


def direction(rule, g, h, d=None):
    shares = rule.shares(products(g, h, d))
    return [b - c * a for a, b, c in zip(g, h, shares, strict=True)]


def multiplier(g, h, rule, strength):
    """λ at the constant 0.4."""
    return combine(products(g, h), [1.0] * len(g), rule, strength, 0.4, g).strength


@pytest.mark.parametrize("rule", [Coupled(), Direct()])
def test_coupled_and_direct_take_all_of_h(rule):
    assert rule.shares(products(*vectors())) == [0.0] * 3
    assert rule.replaces_gradient == isinstance(rule, Direct)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", [False, True])
def test_decoupled_is_orthogonal_over_all_tensors_together(seed, metric):
    g, h = vectors(seed)
    d = [x.square() + 0.1 for x in vectors(seed + 50)[0]] if metric else None
    weight = torch.cat(d) if metric else 1.0
    found = torch.cat(direction(Decoupled(), g, h, d))
    g, h = torch.cat(g), torch.cat(h)
    assert abs((g * weight) @ found) < 1e-12
    # What is taken is along g, and no more than that.
    taken = h - found
    assert abs(taken @ g) == pytest.approx(float(taken.norm() * g.norm()), rel=1e-12)


@pytest.mark.parametrize("metric", [False, True])
def test_per_tensor_is_orthogonal_in_every_tensor(metric):
    g, h = vectors()
    d = [x.square() + 0.1 for x in vectors(9)[0]] if metric else [torch.ones_like(x) for x in g]
    found = direction(DecoupledPerTensor(), g, h, d)
    assert all(abs((a * w) @ b) < 1e-12 for a, b, w in zip(g, found, d, strict=True))
    both = direction(Decoupled(), g, h, d)
    assert max(abs(float((a * w) @ b)) for a, b, w in zip(g, both, d, strict=True)) > 0.01


@pytest.mark.parametrize("rule", [Decoupled(), DecoupledPerTensor()])
def test_projecting_twice_changes_nothing(rule):
    g, h = vectors()
    once = direction(rule, g, h)
    again = direction(rule, g, once)
    assert all(
        torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(once, again, strict=True)
    )


@pytest.mark.parametrize("rule", [Decoupled(), DecoupledPerTensor()])
def test_where_the_gradient_is_zero_nothing_is_taken(rule):
    _, h = vectors()
    zero = [torch.zeros_like(x) for x in h]
    assert rule.shares(products(zero, h)) == [0.0] * 3


def test_together_adds_what_tensors_have():
    assert together([InnerProducts(1, 2, 3), InnerProducts(10, 20, 30)]) == InnerProducts(
        11, 22, 33
    )
    assert together([]) == InnerProducts(0, 0, 0)


@pytest.mark.parametrize("rule", [Coupled(), Decoupled(), DecoupledPerTensor()])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_multiplier_measures_the_direction_itself(rule, scale):
    """λ‖d‖ = κ‖g‖, from inner products alone, at any scale."""
    g, h = vectors(scale=scale)
    found = multiplier(g, h, rule, Ratio(0.4))
    d = torch.cat(direction(rule, g, h))
    assert found * d.norm() == pytest.approx(0.4 * float(torch.cat(g).norm()), rel=1e-10)


@pytest.mark.parametrize("strength", [Ratio(0.4), Fixed(0.4)])
def test_a_direction_that_is_rounding_has_no_multiplier(strength):
    """h = 3g: what the projection leaves is noise, which a ratio would blow up."""
    g, _ = vectors()
    h = [3 * x for x in g]
    assert multiplier(g, h, Decoupled(), strength) == 0.0


def test_a_small_direction_that_is_no_rounding_keeps_its_multiplier():
    g, e = vectors()
    h = [3 * a + 1e-5 * b for a, b in zip(g, e, strict=True)]
    found = multiplier(g, h, Decoupled(), Ratio(0.4))
    d = torch.cat(direction(Decoupled(), g, h))
    assert found * d.norm() == pytest.approx(0.4 * float(torch.cat(g).norm()), rel=1e-3)


def test_no_tensors_no_multiplier():
    assert multiplier([], [], Decoupled(), Ratio(0.4)) == 0.0


def test_the_length_of_d_is_that_of_h_minus_c_g_for_any_c():
    (g, h), shares = vectors(), [0.7, -2.0, 0.0]
    d = torch.cat([y - c * x for x, y, c in zip(g, h, shares, strict=True)])
    assert Update(shares, 0.3).distance(products(g, h)) == pytest.approx(float(d.norm()))
