from dataclasses import replace

import pytest
import torch

from f3eo.bench.continual.streams import blocks, permuted, rotated, split
from f3eo.bench.continual.streams.images import (
    fashion,
    image_stage,
    mnist,
    network,
    standardised,
    unchanged,
)
from f3eo.bench.continual.streams.mnist_fashion import STREAMS
from f3eo.bench.continual.streams.stream import held_out, limited
from f3eo.bench.tasks import Samples


def test_bytes_become_standardised_pixels():
    data = standardised(Samples(torch.tensor([[0, 51, 255]], dtype=torch.uint8), torch.zeros(1)))
    expected = (torch.tensor([[0.0, 0.2, 1.0]], dtype=torch.float64) - 0.1307) / 0.3081
    torch.testing.assert_close(data.x.double(), expected, rtol=1e-6, atol=1e-6)
    assert data.x.dtype == torch.float32


def test_a_change_meets_training_and_test_images_and_the_source_stays(small_data):
    def first_ten(images: Samples) -> Samples:
        return Samples(255 - images.x[:10], images.y[:10] + 1)

    stage = image_stage("a", mnist, first_ten)
    for part, samples in (("train", stage.load().train), ("t10k", stage.load().test)):
        whole = mnist(part)
        assert torch.equal(samples.x, standardised(Samples(255 - whole.x[:10], whole.y)).x)
        assert torch.equal(samples.y, whole.y[:10] + 1)
    before = mnist("train").x.clone()
    image_stage("a", mnist, unchanged).load().train.x.zero_()
    assert torch.equal(mnist("train").x, before)


def test_a_stage_may_have_fewer_training_images(small_data):
    some, every = image_stage("a", mnist, train=7).load(), image_stage("a", mnist).load()
    assert torch.equal(some.train.x, every.train.x[:7])
    assert torch.equal(some.train.y, every.train.y[:7])
    assert torch.equal(some.test.x, every.test.x)


@pytest.mark.parametrize(
    "stage",
    [
        *(one for stream in (permuted, rotated, blocks) for one in stream.stages(5)[2:4]),
        *rotated.unseen(5)[:2],
        *blocks.unseen(5)[:2],
        *STREAMS[0].stages(5),
    ],
    ids=lambda stage: stage.name,
)
def test_some_images_are_the_same_as_of_all(small_data, stage):
    whole, part = stage.load(), limited(stage, 13, 9).load()
    other = limited(replace(stage, some=None), 13, 9).load()
    assert stage.some and len(part.train.y) == 13 < len(whole.train.y)
    for a, b in zip([*part.train, *part.test], [*other.train, *other.test], strict=True):
        assert torch.equal(a, b)
    tuned = (held_out(one, 3, 0.3) for one in (stage, replace(stage, some=None)))
    part, other = (limited(one, 13, 9, 3).load() for one in tuned)
    for a, b in zip([*part.train, *part.test], [*other.train, *other.test], strict=True):
        assert torch.equal(a, b)


def test_a_stage_that_leaves_images_out_is_made_whole(small_data):
    for stage in (*split.digits(0), *split.parity(0)):
        assert stage.some is None


def test_mnist_comes_before_fashion_mnist(small_data):
    first, second = STREAMS[0].stages(0)
    for stage, source in ((first, mnist), (second, fashion)):
        assert torch.equal(stage.load().train.x, standardised(source("train")).x)
        assert torch.equal(stage.test().x, standardised(source("t10k")).x)
    assert not torch.equal(first.test().x, second.test().x)


def test_the_network_is_the_usual_one():
    shapes = [tuple(p.shape) for p in network().parameters() if p.dim() == 2]
    assert shapes == [(256, 784), (256, 256), (10, 256)]
    kinds = [type(layer).__name__ for layer in network(2)]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert network(2)(torch.zeros(3, 784)).shape == (3, 2)
