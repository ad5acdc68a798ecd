from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch

from f3eo import batch as batches
from f3eo.batch import chunks, mapped, random_parts, selected, size, tensors

Pair = namedtuple("Pair", "x y")


def x(count=6):
    return torch.arange(2 * count).view(count, 2)


def y(count=6):
    return torch.arange(count)


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding: a mapping that takes its data in the constructor."""


class Stubborn(UserDict):
    """A mapping whose constructor wants something else."""

    def __init__(self):
        super().__init__()


def stubborn():
    made = Stubborn()
    made["x"], made["y"] = x(), y()
    return made


NESTINGS = {
    "tuple": lambda: (x(), y()),
    "list": lambda: [x(), y()],
    "dict": lambda: {"x": x(), "y": y()},
    "ordered": lambda: OrderedDict(x=x(), y=y()),
    "namedtuple": lambda: Pair(x(), y()),
    "user dict": lambda: Encoding({"x": x(), "y": y()}),
    "stubborn": stubborn,
    "proxy": lambda: MappingProxyType({"x": x(), "y": y()}),
    "deep": lambda: ({"a": [Pair(x(), None)], "flag": True}, Encoding({"y": y(), "name": "b"}), 3),
}


def leaves(batch):
    return [t.tolist() for t in tensors(batch)]


@pytest.mark.parametrize("name", NESTINGS)
def test_tensors_are_found_and_counted_in_any_nesting(name):
    batch = NESTINGS[name]()
    assert leaves(batch) == [x().tolist(), y().tolist()]
    assert size(batch) == 6


@pytest.mark.parametrize("name", NESTINGS)
def test_samples_are_selected_in_order_and_the_nesting_is_kept(name):
    batch = NESTINGS[name]()
    index = torch.tensor([4, 0, 4])
    part = selected(batch, index)
    assert leaves(part) == [x()[index].tolist(), y()[index].tolist()]
    assert type(part) is type(batch) or (name == "stubborn" and type(part) is dict)
    assert leaves(batch) == [x().tolist(), y().tolist()]


@pytest.mark.parametrize("name", NESTINGS)
def test_chunks_are_consecutive_views(name):
    batch = NESTINGS[name]()
    parts = chunks(batch, 4)
    assert [size(part) for part in parts] == [4, 2]
    for k, t in enumerate(tensors(batch)):
        pieces = [list(tensors(part))[k] for part in parts]
        assert torch.equal(torch.cat(pieces), t)
        assert pieces[0].data_ptr() == t.data_ptr()


def test_constants_pass_through():
    batch = (x(), None, True, 2, 0.5, 1j, "text", b"bytes", torch.tensor(3.0))
    part = selected(batch, torch.tensor([1]))
    assert part[1:8] == batch[1:8] and part[8] is batch[8]
    assert part[0].tolist() == [[2, 3]]


def test_a_tensor_without_dimension_is_no_sample():
    assert size((torch.tensor(1.0),)) is None
    assert size((torch.tensor(1.0), y())) == 6


@pytest.mark.parametrize("batch", [(), [], {}, (None, 3), ({"a": []},)])
def test_a_batch_without_tensors_has_no_size(batch):
    assert size(batch) is None


def test_an_empty_batch_has_size_zero():
    assert size((x(0), y(0))) == 0
    assert [size(part) for part in chunks((x(0), y(0)), 4)] == [0]


def test_unequal_sizes_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"received sizes \[5, 6\].*belong into the closure"):
        size((x(6), {"y": y(5)}))


@dataclass
class Record:
    x: torch.Tensor


@pytest.mark.parametrize("thing", [Record(y()), {1, 2}, iter([y()]), print, object()])
def test_what_is_no_nesting_is_refused_by_its_type(thing):
    with pytest.raises(TypeError, match=f"received a {type(thing).__name__}.*tensors over"):
        size((x(), thing))


def test_mapped_applies_to_tensors_that_carry_samples_only():
    seen = []
    mapped(lambda t: seen.append(t.shape) or t, {"a": x(), "b": (torch.tensor(1.0), y(), "c")})
    assert seen == [(6, 2), (6,)]


@pytest.mark.parametrize(("count", "first"), [(1, 1), (5, 2), (5, 5), (7, 6)])
def test_random_parts_are_disjoint_and_cover_all(count, first):
    inside, outside = random_parts(count, first, torch.Generator().manual_seed(0))
    assert len(inside) == first
    assert sorted(torch.cat([inside, outside]).tolist()) == list(range(count))


def test_random_parts_are_uniform_and_follow_the_generator():
    """Every sample is in a part of 2 of 4 half the time: 2000 draws, five standard deviations."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(2000):
        counts[random_parts(4, 2, generator)[0]] += 1
    assert (counts - 1000).abs().max() < 5 * 500**0.5
    again = [random_parts(9, 3, torch.Generator().manual_seed(4))[0].tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_random_parts_without_a_generator_draw_from_the_global_one():
    torch.manual_seed(5)
    first = random_parts(50, 25, None)[0]
    assert not torch.equal(first, random_parts(50, 25, None)[0])
    torch.manual_seed(5)
    assert torch.equal(first, random_parts(50, 25, None)[0])


def test_constants_are_listed():
    assert set(batches.CONSTANTS) >= {type(None), bool, int, float, str, bytes}
