"""Flat buckets give back what was put in, summed."""

import pytest
import torch

from docs.pages import prose
from f3eo.processes.buckets import BUCKET, Sums, pack, plan, unpack

f32, f64 = torch.float32, torch.float64


def tensors(*kinds):
    return [torch.randn(shape, dtype=dtype) for shape, dtype in kinds]


def test_a_bucket_holds_one_type_up_to_its_limit_in_order():
    like = tensors(((4,), f32), ((2,), f64), ((3,), f32), ((1, 2), f32), ((9,), f64), ((), f32))
    assert plan(like, limit=28) == [[0, 2], [1], [3, 5], [4]]
    assert plan(like) == [[0, 2, 3, 5], [1, 4]]
    assert plan([]) == []


def test_what_is_larger_than_a_bucket_is_one_by_itself():
    assert plan(tensors(((9,), f32), ((9,), f32)), limit=4) == [[0], [1]]


def test_the_page_says_how_large_a_bucket_is():
    assert f"flat buckets of {BUCKET // 2**20} MiB" in prose("processes.md")


def test_packed_tensors_come_back_times_the_share():
    like = tensors(((2, 3), f64), ((), f64), ((0, 4), f64), ((4,), f64))
    turned = torch.randn(3, 2, dtype=f64).t()
    found = unpack(pack([turned, None, like[2], like[3]], like, 0.25), like)
    assert torch.equal(found[0], 0.25 * turned) and found[1] == 0
    assert torch.equal(found[3], 0.25 * like[3]) and found[2].shape == (0, 4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_share_of_0_is_0_and_another_one_keeps_what_is_not_finite(value):
    x = torch.tensor([value, 1.0])
    assert pack([x], [x], 0.0).tolist() == [0, 0]
    assert not pack([x], [x], 0.5).isfinite().all()


def test_all_sums_are_begun_before_one_is_waited_for():
    told, like = [], tensors(((4,), f32), ((3,), f64))

    class Work:
        def wait(self):
            told.append("waited")

    def start(flat):
        told.append("begun")
        flat.mul_(2)
        return Work()

    sums = Sums(start, 0.5)
    found = sums.begin(like, like)
    assert told == ["begun"] * 2 and sums.bytes == 4 * 4 + 3 * 8
    sums.wait()
    sums.wait()
    assert told == ["begun"] * 2 + ["waited"] * 2
    for x, y in zip(found, like, strict=True):
        assert torch.equal(x, y)


def test_what_is_none_is_summed_as_zeros_of_the_shape_and_device_it_would_have():
    like = tensors(((2, 3), f64), ((4,), f64))
    (x,) = tensors(((4,), f64))
    found = Sums(lambda flat: None, 0.5).begin([None, x], like)
    assert torch.equal(found[0], torch.zeros(2, 3, dtype=f64)) and torch.equal(found[1], 0.5 * x)
    away = torch.empty(3, device="meta")
    assert pack([away], [away], 1.0).device == away.device
