"""What memories keep: their probabilities, counts, forms and state."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from f3eo.continual import Balanced, Memory, Reservoir, Ring

MEMORIES: dict[str, Callable[[torch.Generator], Memory]] = {
    "reservoir": lambda g: Reservoir(6, g),
    "ring": lambda g: Ring(3, g),
    "balanced": lambda g: Balanced(6, lambda x, y: y, g),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stream(count: int, batch: int, classes: int = 3):
    """Batches (x, y) whose sample number n has x = n and the class n mod `classes`."""
    number = torch.arange(count)
    return zip(number.double().split(batch), (number % classes).split(batch), strict=True)


def kept(memory: Memory) -> list[int]:
    x, _ = memory.draw(10**6)
    return [int(v) for v in x]


@pytest.mark.parametrize("batch", [1, 7])
def test_a_reservoir_keeps_every_sample_with_equal_probability(batch):
    count, size, runs = 40, 8, 800
    found = Counter()
    for seed in range(runs):
        memory = Reservoir(size, generator(seed))
        for x, y in stream(count, batch):
            memory.add(x, y)
        found.update(kept(memory))
    expected = runs * size / count
    # Each run keeps exactly `size`: the statistic has mean 39 (1 − 8/40)·40/39 = 32 and, since it
    # is at most a chi-square with 39 degrees of freedom, exceeds 73 with probability 0.001.
    statistic = sum((found[n] - expected) ** 2 / expected for n in range(count))
    assert sum(found.values()) == runs * size
    assert statistic < 73


def test_a_reservoir_keeps_all_while_there_is_room():
    memory = Reservoir(10, generator(0))
    for x, y in stream(9, 4):
        memory.add(x, y)
    assert kept(memory) == list(range(9))


def test_a_ring_keeps_the_last_of_every_task():
    memory = Ring(3, generator(0))
    for task in range(3):
        for x, y in stream(5, 2):
            memory.add(10 * task + x, y)
        memory.end_task()
    assert sorted(kept(memory)) == [2, 3, 4, 12, 13, 14, 22, 23, 24]


def test_a_short_task_has_as_many_as_it_had():
    memory = Ring(3, generator(0))
    for count in (1, 5):
        for x, y in stream(count, 2):
            memory.add(x, y)
        memory.end_task()
    assert len(memory) == 4


def test_a_balanced_memory_has_equal_numbers_of_unequal_classes():
    memory = Balanced(12, lambda x, y: y, generator(0))
    y = torch.tensor([0] * 200 + [1] * 40 + [2] * 5 + [0] * 100)
    for part in torch.arange(len(y)).split(9):
        memory.add(part.double(), y[part])
    _, labels = memory.draw(100)
    assert Counter(labels.tolist()) == {0: 4, 1: 4, 2: 4}


def test_a_balanced_memory_samples_the_largest_class_uniformly():
    count, size, runs = 30, 6, 800
    found = Counter()
    for seed in range(runs):
        memory = Balanced(size, lambda x, y: y, generator(seed))
        for x, y in stream(count, 5, classes=1):
            memory.add(x, y)
        found.update(kept(memory))
    expected = runs * size / count
    assert sum((found[n] - expected) ** 2 / expected for n in range(count)) < 58  # 29 of freedom


def test_a_draw_takes_each_sample_at_most_once_and_all_equally_often():
    memory, found = Reservoir(10, generator(1)), Counter()
    memory.add(torch.arange(10.0))
    for _ in range(2000):
        (x,) = memory.draw(4) or ()
        assert len(set(x.tolist())) == 4
        found.update(x.tolist())
    assert sum((found[n] - 800) ** 2 / 800 for n in map(float, range(10))) < 28


@pytest.mark.parametrize("make", MEMORIES.values(), ids=MEMORIES)
def test_an_empty_memory_gives_nothing(make):
    assert make(generator(0)).draw(3) is None


@pytest.mark.parametrize("make", MEMORIES.values(), ids=MEMORIES)
def test_a_memory_goes_on_from_its_state_as_if_it_had_not_stopped(make, tmp_path):
    batches = list(stream(60, 4))
    whole, first, second = make(generator(3)), make(generator(3)), make(generator(99))
    for x, y in batches:
        whole.add(x, y)
    for x, y in batches[:8]:
        first.add(x, y)
    torch.save(first.state_dict(), tmp_path / "memory.pt")
    second.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for x, y in batches[8:]:
        second.add(x, y)
    assert kept(second) == kept(whole)
    assert all(map(torch.equal, second.draw(3), whole.draw(3)))


def test_a_state_does_not_change_with_the_memory():
    memory = Reservoir(3, generator(0))
    memory.add(torch.arange(3.0))
    state = memory.state_dict()
    memory.add(torch.arange(3.0, 40.0))
    assert state["samples"]["batch"][0].tolist() == [0, 1, 2]


def test_a_memory_keeps_any_form_of_batch():
    memory = Reservoir(3, generator(0))
    tokens = [{"ids": torch.arange(n + 2), "n": n} for n in range(4)]
    scale = torch.tensor(2.0)
    for part in (slice(0, 2), slice(2, 4)):
        named = {"x": torch.arange(4)[part], "scale": scale, "mode": "mean"}
        memory.add(named, tokens[part], ["a", "b", "c", "d"][part])
    named, drawn, words = memory.draw(3)
    assert named["mode"] == "mean" and named["scale"] is scale
    numbers = named["x"].tolist()
    assert [t["n"] for t in drawn] == numbers and len(drawn[0]["ids"]) == numbers[0] + 2
    assert words == ["abcd"[n] for n in numbers]


def test_what_is_kept_has_no_graph_and_is_a_copy():
    memory = Reservoir(4, generator(0))
    x = torch.ones(2, 3, requires_grad=True)
    memory.add(2 * x)
    with torch.no_grad():
        x.zero_()
    (kept,) = memory.draw(2) or ()
    assert not kept.requires_grad and kept.sum() == 12


def test_a_memory_on_another_device_gives_back_on_the_batches_own():
    memory = Reservoir(4, generator(0), device="meta")
    memory.add(torch.ones(2, 3))
    assert memory._store._rows[0].device.type == "meta"
    assert memory._store._devices == ["cpu"]


ERRORS = {
    "no samples": (lambda m: m.add(), "step\\(closure, \\*batch\\)"),
    "another constant": (lambda m: m.add(torch.ones(2), "b"), "received .*'b'.*one entry a sample"),
    "another shape": (lambda m: m.add(torch.ones(2, 5), "a"), r"\(\).*received \(5,\).*pad"),
    "another type": (lambda m: m.add(torch.ones(2).double(), "a"), "float32.*float64"),
}


@pytest.mark.parametrize(("add", "message"), ERRORS.values(), ids=ERRORS)
def test_what_does_not_fit_is_refused_with_the_cure(add, message):
    memory = Reservoir(4)
    memory.add(torch.ones(2), "a")
    with pytest.raises(ValueError, match=message):
        add(memory)


def test_sizes_and_keys_are_checked():
    with pytest.raises(ValueError, match="size must be > 0, received 0"):
        Reservoir(0)
    with pytest.raises(TypeError, match="per_task must be an integer, received 2"):
        Ring(2.5)  # pyright: ignore
    with pytest.raises(TypeError, match="lambda x, y: y, received 'y'"):
        Balanced(3, "y")  # pyright: ignore
    with pytest.raises(ValueError, match=r"each of 2 samples, received \(2, 1\)"):
        Balanced(3, lambda x: x).add(torch.ones(2, 1))


def test_the_repr_is_the_call():
    assert repr(Reservoir(5)) == "Reservoir(5)"
    assert repr(Ring(5, device="cpu")) == "Ring(5, device='cpu')"


def test_one_that_is_given_a_tensor_of_weights_gives_it_back_row_by_row():
    memory = Ring(4)
    w: Tensor = torch.rand(3, 2)
    memory.add(torch.arange(3), w)
    index, rows = memory.draw(4) or ()
    assert torch.equal(rows, w[index])
