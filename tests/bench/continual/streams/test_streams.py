"""What holds for every stream."""

import pytest
import torch

from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.tasks import Samples

STAGES = {
    "permuted-mnist": (20, 0),
    "rotated-mnist": (20, 7),
    "block-mnist": (10, 5),
    "split-mnist-class": (5, 0),
    "split-mnist-domain": (5, 0),
    "split-mnist-task": (5, 0),
    "mnist-fashion": (2, 0),
    "text": (3, 2),
    "sinusoid": (10, 5),
}
"""Numbers of stages and of unseen ones."""
SEEDLESS = {n for n in STAGES if n.startswith(("rotated", "split", "mnist"))}
"""Streams that draw nothing: only the model and the order of samples differ between seeds."""

each = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)


def same(first: Samples, second: Samples) -> bool:
    return all(map(torch.equal, first, second))


def rows(samples: Samples) -> set[tuple[float, ...]]:
    return {tuple(row) for row in samples.x.flatten(1).tolist()}


@each
def test_a_stream_has_its_stages_and_their_names_differ(stream):
    stages, unseen = stream.stages(0), stream.unseen(0)
    assert (len(stages), len(unseen)) == STAGES[stream.name]
    names = [stage.name for stage in (*stages, *unseen)]
    assert len(set(names)) == len(names)
    assert 1 <= stream.tuned_on <= len(stages)


@each
def test_the_seed_determines_the_data(stream, small_data):
    for family in (stream.stages, stream.unseen):
        for one, two in list(zip(family(3), family(3), strict=True))[:3]:
            first, second = one.load(), two.load()
            assert same(first.train, second.train) and same(first.test, second.test)
            assert same(one.test(), first.test) and same(one.test(), one.test())
    last = -1  # text begins with the same stage for all seeds
    equal = same(stream.stages(3)[last].test(), stream.stages(4)[last].test())
    assert equal == (stream.name in SEEDLESS)


@each
def test_stages_and_unseen_stages_differ_in_what_is_asked(stream, small_data):
    stages = [*stream.stages(0)[:3], *stream.unseen(0)[:2]]
    tests = [stage.test() for stage in stages]
    for i, one in enumerate(tests):
        for other in tests[:i]:
            assert len(one.y) != len(other.y) or not same(one, other)


@each
def test_no_sample_is_both_trained_on_and_tested(stream, small_data):
    for stage in (stream.stages(0)[-1], *stream.unseen(0)[:1]):
        data = stage.load()
        # Of 11,000 random numbers a few agree in all 24 bits.
        both = rows(data.train) & rows(data.test)
        assert len(both) <= (10 if stream.name == "sinusoid" else 0)


@each
def test_loss_and_score_of_a_sample_do_not_depend_on_its_batch(stream, small_data):
    model = stream.seeded_model(0)
    for stage in (*stream.stages(0)[-1:], *stream.unseen(0)[:1]):
        x, y = (part[:8] for part in stage.load().train)
        for measure in (stream.loss, stream.score):
            together = measure(model(x), y)
            alone = [measure(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(y))]
            assert together.shape == (len(y),)
            torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stream", [s for s in STREAMS.values() if s.name != "text"])
def test_chance_is_the_score_of_a_model_that_ignores_its_input(stream, small_data):
    """On labels of equal shares."""
    outputs = stream.seeded_model(0)(stream.stages(0)[0].test().x).detach().zero_()
    scores = [
        stream.score(outputs[: len(test.y)], test.y).mean()
        for test in (stage.test() for stage in stream.stages(0))
    ]
    assert abs(torch.stack(scores).mean() - stream.chance) < 0.02


@each
def test_a_model_depends_on_its_seed_alone(stream):
    first, second, other = (list(stream.seeded_model(s).parameters()) for s in (1, 1, 2))
    assert all(map(torch.equal, first, second)) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", ["permuted-mnist", "split-mnist-class", "mnist-fashion"])
def test_stages_have_all_published_images(name, needs_data):
    stages = STREAMS[name].stages(0)
    train, test = (60_000, 10_000) if not name.startswith("split") else (11_800, 1_983)  # "8 9"
    data = stages[-1].load()
    assert tuple(map(len, data.train)) == (train, train) and len(data.test.y) == test
    values = torch.cat([data.train.x.min()[None], data.train.x.max()[None]])
    torch.testing.assert_close(values, torch.tensor([0 - 0.1307, 1 - 0.1307]) / 0.3081)
    if name == "permuted-mnist":
        assert abs(data.train.x.mean()) < 1e-3 and abs(data.train.x.std() - 1) < 1e-3
