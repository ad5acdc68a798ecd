import pytest
import torch

from f3eo.bench.continual.streams.stream import Stage, Stream, held_out, limited, none
from f3eo.bench.continual.streams.stream import recent as kept
from f3eo.bench.tasks import Data, Samples


def made(train: int = 100, test: int = 50) -> Data:
    x = torch.arange(train + test, dtype=torch.float32)[:, None]
    y = torch.arange(train + test) % 5
    return Data(Samples(x[:train], y[:train]), Samples(x[train:], y[train:]))


def values(samples: Samples) -> list[float]:
    return samples.x.flatten().tolist()


def test_the_last_two_loads_of_all_stages_are_kept():
    kept.cache_clear()
    asked: list[int] = []

    def load(number: int) -> Data:
        asked.append(number)
        return made()

    loads = [lambda number=number: load(number) for number in range(3)]
    first = kept(loads[0])
    assert kept(loads[0]) is first and asked == [0]
    kept(loads[1]), kept(loads[2]), kept(loads[0])
    assert asked == [0, 1, 2, 0]
    kept.cache_clear()


def test_test_samples_come_without_training_samples_where_they_can():
    data = made()
    assert Stage("a", lambda: data).test() is data.test
    other = made().test
    assert Stage("a", lambda: pytest.fail("loaded"), lambda: other).test() is other


def test_held_out_takes_training_samples_only():
    stage = held_out(Stage("a", made, lambda: pytest.fail("tested")), seed=3, share=0.3)
    data = stage.load()
    assert (len(data.train.y), len(data.test.y)) == (70, 30)
    assert sorted(values(data.train) + values(data.test)) == values(made().train)
    assert torch.equal(stage.test().x, data.test.x) and stage.name == "a"
    assert values(data.test) != values(held_out(Stage("a", made), seed=4, share=0.3).test())


def test_some_training_samples_of_a_held_out_stage_are_those_of_all_that_are_left():
    numbers = torch.tensor([5, 0, 41])
    counts: list[int] = []
    for stage in (Stage("a", made), Stage("a", made, some=lambda pick: made().train.at(pick(100)))):
        held = held_out(stage, seed=3, share=0.3)
        found = held.training(lambda count: counts.append(count) or numbers)
        assert values(found) == values(held.load().train.at(numbers))
        assert values(held.test()) == values(held.load().test)
    assert counts == [70, 70]


def test_a_limited_stage_is_a_random_part_and_the_same_at_every_call():
    whole = Stage("a", made)
    stage = limited(whole, 20, 10)
    data, again = stage.load(), limited(whole, 20, 10).load()
    assert values(data.train) == values(again.train) and values(data.test) == values(stage.test())
    assert len(set(values(data.train))) == 20 and len(set(values(data.test))) == 10
    assert set(values(data.train)) < set(values(made().train))
    assert set(values(data.test)) < set(values(made().test))
    assert values(data.train) != sorted(values(data.train))[:20]
    for part in (data.train, data.test):
        assert torch.equal(part.y, part.x.flatten().long() % 5)


def test_test_samples_are_drawn_by_the_seed_and_training_samples_are_not():
    first, other = (limited(Stage("a", made), 20, 10, seed).load() for seed in (3, 4))
    assert values(first.train) == values(other.train)
    assert values(first.test) != values(other.test)
    assert values(limited(Stage("a", made), 20, 10, 3).test()) == values(first.test)


def test_training_samples_are_made_alone_where_they_can():
    def some(pick):
        whole = made().train
        return Samples(*(part[pick(100)] for part in whole))

    stage = Stage("a", lambda: pytest.fail("loaded"), lambda: made().test, some)
    for samples in (20, 100, 101):
        data = limited(stage, samples, 10).load()
        assert values(data.train) == values(limited(Stage("a", made), samples).load().train)


def test_a_limit_that_is_none_or_above_all_takes_all():
    for stage in (limited(Stage("a", made)), limited(Stage("a", made), 101, 51)):
        assert values(stage.load().train) == values(made().train)
        assert values(stage.test()) == values(stage.load().test) == values(made().test)


@pytest.mark.parametrize("name", ["samples", "tests"])
def test_a_limit_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1 or None for all, received 0"):
        limited(Stage("a", made), **{name: 0})


@pytest.mark.parametrize(("metric", "higher"), [("accuracy", True), ("loss", False), ("error", 0)])
def test_only_an_accuracy_is_better_where_it_is_higher(metric, higher):
    def loss(outputs, y):
        return outputs

    stream = Stream("", "", none, none, torch.nn.Identity, loss, loss, 0.5, metric=metric)
    assert stream.higher_is_better == higher and stream.unseen(0) == ()
