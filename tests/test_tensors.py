"""Arithmetic on lists of tensors against plain loops in float64."""

import pytest
import torch

from f3eo.tensors import (
    ROUNDING,
    above_rounding,
    add_to,
    fetched,
    inner,
    norms,
    squared_norm,
    squares,
    stacked,
)

SHAPES = [(), (3,), (4, 5), (2, 3, 2), (0,)]


def vector(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_norms_and_products_are_those_of_a_loop_in_a_wide_type(dtype):
    a, b = vector(dtype), [t.mT if t.ndim == 2 else t for t in vector(dtype, seed=1)]
    b[2] = b[2].contiguous().view(4, 5)
    truth = [float((x.double() ** 2).sum()) for x in a]
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    assert fetched(squares(a)) == pytest.approx(truth, rel=tolerance)
    assert fetched(norms(a)) == pytest.approx([t**0.5 for t in truth], rel=tolerance)
    assert float(squared_norm(a)) == pytest.approx(sum(truth), rel=tolerance)
    product = sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))
    assert float(inner(a, b)) == pytest.approx(product, rel=100 * tolerance)
    assert all(n.dtype is not torch.bfloat16 for n in norms(a))


def test_empty_lists_have_length_zero():
    assert norms([]) == squares([]) == fetched([]) == [] and len(stacked([])) == 0
    assert float(squared_norm([])) == 0


def test_scalars_of_several_types_are_read_in_the_widest():
    third = torch.tensor(1 / 3, dtype=torch.float64)
    values = fetched([torch.tensor(0.5), third])
    assert values == [0.5, 1 / 3] and fetched([third]) == [1 / 3]


def test_a_sum_in_place_is_the_sum_bit_for_bit():
    a, b = vector(torch.float32), vector(torch.float32, seed=1)
    expected, memory = [x + 0.3 * y for x, y in zip(a, b, strict=True)], [x.data_ptr() for x in a]
    reference = torch._foreach_add(a, b, alpha=0.3)
    add_to(a, b, 0.3)
    assert all(torch.equal(x, y) for x, y in zip(a, reference, strict=True))
    assert [x.data_ptr() for x in a] == memory
    assert all(torch.allclose(x, y) for x, y in zip(a, expected, strict=True))


@pytest.mark.parametrize("read", [False, True])
def test_products_within_rounding_are_zero_and_others_stay(read):
    product = vector()
    length = float(squared_norm(product)) ** 0.5
    kept = above_rounding(product, torch.tensor(0.99 * length / ROUNDING), read=read)
    assert all(torch.equal(k, p) for k, p in zip(kept, product, strict=True))
    zeros = above_rounding(product, torch.tensor(1.01 * length / ROUNDING), read=read)
    assert not any(z.any() for z in zeros) and [z.shape for z in zeros] == [
        p.shape for p in product
    ]
    product[1][0] = torch.nan
    assert above_rounding(product, torch.tensor(1e9), read=read)[1][0].isnan()
