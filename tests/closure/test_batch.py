"""Batches of any nesting are counted, selected, split and compared."""

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f3eo.closure.batch import (
    CONSTANTS,
    chunks,
    map_samples,
    random_parts,
    select,
    signature,
    size,
    tensors,
)

Pair = namedtuple("Pair", "x y")


def x(count=6):
    return torch.arange(2 * count).view(count, 2)


def y(count=6):
    return torch.arange(count)


class Encoding(UserDict):
    """A mapping that takes its data in the constructor, as Hugging Face's BatchEncoding does."""


class Stubborn(UserDict):
    """A mapping whose constructor takes no data."""

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
    part = select(batch, index)
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
    part = select(batch, torch.tensor([1]))
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
    with pytest.raises(ValueError, match=r"received sizes \[5, 6\].*belong in the closure"):
        size((x(6), {"y": y(5)}))


@dataclass
class Record:
    x: torch.Tensor


@pytest.mark.parametrize("thing", [Record(y()), {1, 2}, iter([y()]), print, object()])
def test_what_is_no_nesting_is_refused_by_its_type(thing):
    with pytest.raises(TypeError, match=f"received a {type(thing).__name__}.*its tensors"):
        size((x(), thing))


def test_map_samples_applies_to_tensors_that_carry_samples_only():
    seen = []
    map_samples(lambda t: seen.append(t.shape) or t, {"a": x(), "b": (torch.tensor(1.0), y(), "c")})
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
    assert set(CONSTANTS) >= {type(None), bool, int, float, str, bytes}


def uncollated(count=6):
    """Samples that are not collated: shapes differ, labels are scalar tensors."""
    return [{"x": torch.full((2 + i % 3,), i), "y": torch.tensor(i), "id": i} for i in range(count)]


def words(count=6):
    return [f"w{i}" for i in range(count)]


CUT = {
    "list of strings": lambda: ({"x": x(), "ids": words()},),
    "tuple of strings": lambda: (x(), tuple(words())),
    "list of numbers": lambda: (x(), list(range(6))),
    "list of lists": lambda: (x(), [[i] * 6 for i in words()]),
    "positions of tuples": lambda: (x(), [tuple(words())] * 5),
    "uncollated": lambda: (uncollated(),),
    "uncollated beside": lambda: (x(), uncollated(), {"z": y()}),
    "metadata of samples": lambda: (x(), [{"id": i} for i in words()]),
}


def entries(batch):
    """Everything that holds samples, as lists with one entry a sample."""
    found = []
    map_samples(lambda v: found.append(list(v)) or v, batch)
    return [[repr(entry) for entry in entries] for entries in found]


@pytest.mark.parametrize("name", CUT)
def test_lists_with_an_entry_a_sample_are_cut_with_the_tensors(name):
    batch = CUT[name]()
    assert size(batch) == 6
    whole = entries(batch)
    assert whole and all(len(e) == 6 for e in whole)
    assert sum(map(len, whole)) > 6 or name == "uncollated"
    parts = [entries(part) for part in chunks(batch, 4)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    index = torch.tensor([4, 0, 4])
    assert entries(select(batch, index)) == [[e[i] for i in index.tolist()] for e in whole]
    assert [size(part) for part in chunks(batch, 4)] == [4, 2]


@pytest.mark.parametrize(
    "constant",
    [(6.0, 6, 6, 6, 6, 6), torch.Size([6] * 6), [None] * 6, words(5), (), Pair(1, "a"), "sixsix"],
)
def test_constants_are_kept_whole(constant):
    batch = (x(), constant)
    for part in (select(batch, torch.tensor([3])), *chunks(batch, 4)):
        assert part[1] == constant and type(part[1]) is type(constant)


def test_a_pair_of_named_constants_is_no_list_of_two_samples():
    batch = (x(2), Pair("a", "b"), {"y": y(2)})
    assert chunks(batch, 1)[0][1] == Pair("a", "b")


def test_collated_parts_in_a_tuple_are_no_samples():
    pair = ({"x": x()}, {"x": x()})
    assert size((pair,)) == 6
    assert [t.shape for t in tensors(select((pair,), y(3)))] == [(3, 2), (3, 2)]


def test_samples_not_collated_are_counted_by_themselves():
    assert size((uncollated(3),)) == 3
    with pytest.raises(ValueError, match=r"sizes \[3, 6\].*list of mappings counts by its length"):
        size((x(), uncollated(3)))


def test_arrays_are_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"received a ndarray.*torch\.as_tensor\(array\)"):
        size((x(), {"y": y().numpy()}))
    with pytest.raises(TypeError, match=r"received a Record.*vars\(batch\)"):
        map_samples(len, Record(y()))


def test_signatures_differ_for_equal_constants_of_another_type():
    signatures = [signature((x(), c)) for c in (1, 1.0, True, "1", [1], (1,))]
    assert all(a != b for i, a in enumerate(signatures) for b in signatures[:i])
    assert signature((x(), words())) == signature((x(), words()))
    assert signature((x(), words())) != signature((x(), words()[::-1]))


def leaf(count):
    """A possible part of a batch of `count` samples."""
    return st.sampled_from(
        [
            torch.arange(count),
            torch.arange(3 * count).view(count, 3),
            torch.tensor(2.0),
            [{"a": torch.ones(i), "b": i} for i in range(count)],
            words(count),
            tuple(words(count)),
            [1.5] * count,
            (1.5,) * count,
            [None] * count,
            [["p", "q"]] * count,
            words(count + 1),
            None,
            7,
            "word",
        ]
    )


@st.composite
def nestings(draw):
    count = draw(st.integers(1, 5))
    inner = st.recursive(
        leaf(count),
        lambda own: st.one_of(
            st.tuples(own, own),
            st.builds(Pair, own, own),
            st.dictionaries(st.sampled_from("abc"), own, max_size=3),
            # Beside a tensor: a list of mappings alone would hold samples.
            own.map(lambda value: [torch.arange(count), value]),
        ),
        max_leaves=6,
    )
    return count, (torch.arange(count), draw(inner))


@settings(max_examples=200, deadline=None)
@given(nestings(), st.integers(1, 4), st.randoms())
def test_parts_of_any_nesting_join_to_the_whole(nesting, step, random):
    count, batch = nesting
    assert size(batch) == count
    parts = chunks(batch, step)
    assert sum(size(part) for part in parts) == count
    assert repr(glued(batch, parts)) == repr(batch)
    order = list(range(count))
    random.shuffle(order)
    back = torch.tensor(order).argsort()
    split = max(1, count // 2)
    indices = [index for index in (back[:split], back[split:]) if len(index)]
    shuffled = select(batch, torch.tensor(order))
    assert repr(glued(batch, [select(shuffled, index) for index in indices])) == repr(batch)
    assert signature(map_samples(lambda v: v, batch)) == signature(batch)


def glued(whole, parts):
    """The parts concatenated; what equals the whole in every part is a constant."""
    if isinstance(whole, torch.Tensor):
        return torch.cat(parts) if whole.ndim else parts[0]
    if all(repr(part) == repr(whole) for part in parts):
        return whole
    if isinstance(whole, dict):
        return {key: glued(value, [part[key] for part in parts]) for key, value in whole.items()}
    if sum(map(len, parts)) == len(whole) and not hasattr(whole, "_fields"):
        return type(whole)(entry for part in parts for entry in part)
    items = [glued(value, [part[k] for part in parts]) for k, value in enumerate(whole)]
    return type(whole)(*items) if hasattr(whole, "_fields") else type(whole)(items)
