"""Permutations of pixels and of blocks."""

import pytest
import torch

from f3eo.bench.continual.streams import blocks, permuted
from f3eo.bench.continual.streams.images import mnist, standardised
from f3eo.bench.tasks import Samples


def is_permutation(order: torch.Tensor) -> bool:
    return sorted(order.tolist()) == list(range(len(order)))


def test_orders_are_permutations_of_all_pixels_and_differ_between_stages_and_seeds():
    first, second = permuted.orders(0, 20, 784), permuted.orders(1, 20, 784)
    every = torch.cat([first, second])
    assert all(map(is_permutation, every)) and len(every.unique(dim=0)) == 40
    assert not is_permutation(torch.tensor([0, 0, 2]))
    assert not (every == torch.arange(784)).all(1).any()  # the first stage is permuted, too
    assert torch.equal(first[:3], permuted.orders(0, 3, 784))


def test_reordered_images_have_pixel_order_i_in_place_i():
    x = torch.arange(2 * 784).view(2, 784)
    order = permuted.orders(0, 1, 784)[0]
    moved = permuted.reordered(Samples(x, torch.zeros(2)), order).x
    assert all(moved[n, i] == x[n, order[i]] for n in range(2) for i in range(784))
    assert torch.equal(moved[:, order.argsort()], x)


@pytest.mark.parametrize("room", [permuted, blocks])
def test_one_order_serves_training_and_test_images(room, small_data):
    """Known pixel by pixel: the columns of both parts move to the same places."""
    data, pixels = room.stages(0)[1].load(), standardised(mnist("train")).x
    place = [int((pixels == column[:, None]).all(0).nonzero()) for column in data.train.x.T[:50]]
    assert torch.equal(data.test.x[:, :50], standardised(mnist("t10k")).x[:, place])
    assert torch.equal(data.test.y, mnist("t10k").y)


@pytest.mark.parametrize("along", [1, 2, 4, 7])
def test_blocks_move_as_a_whole(along):
    generator = torch.Generator().manual_seed(0)
    order, size = torch.randperm(along**2, generator=generator), 28 // along
    pixels = blocks.pixel_order(order)
    assert is_permutation(pixels)
    image = torch.arange(784).view(28, 28)
    moved = image.flatten()[pixels].view(28, 28)
    for place, block in enumerate(order.tolist()):
        (r, c), (row, column) = divmod(place, along), divmod(block, along)
        there = moved[r * size :, c * size :][:size, :size]
        assert torch.equal(there, image[row * size :, column * size :][:size, :size])


@pytest.mark.parametrize("number", [2, 9])
def test_blocks_that_do_not_tile_the_image_are_refused(number):
    with pytest.raises(ValueError, match=f"28×28 has no {number} equal square blocks: take"):
        blocks.pixel_order(torch.arange(number))


def test_quarters_never_come_twice_in_the_same_order():
    for seed in range(5):
        orders = blocks.block_orders(seed, 15)
        assert all(map(is_permutation, orders)) and len(orders.unique(dim=0)) == 15
        names = [stage.name for stage in (*blocks.stages(seed), *blocks.unseen(seed))]
        assert names == ["".join(str(b + 1) for b in order) for order in orders.tolist()]
    assert not torch.equal(blocks.block_orders(0, 15), blocks.block_orders(1, 15))
