import math

import pytest
import torch

from f3eo.bench.continual.streams.images import mnist, standardised
from f3eo.bench.continual.streams.rotated import rotate, stages, unseen


def drawn(number: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (number, 784), generator=generator, dtype=torch.uint8)


def by_loop(image: torch.Tensor, degrees: float) -> torch.Tensor:
    """A turn to the left, pixel by pixel in float64: what was where the pixel came from."""
    turn, centre = math.radians(degrees), 13.5
    result = torch.zeros(28, 28, dtype=torch.float64)
    for row in range(28):
        for column in range(28):
            up, right = centre - row, column - centre
            x = right * math.cos(turn) + up * math.sin(turn) + centre
            y = centre - (up * math.cos(turn) - right * math.sin(turn))
            for r in (math.floor(y), math.floor(y) + 1):
                for c in (math.floor(x), math.floor(x) + 1):
                    if 0 <= r < 28 and 0 <= c < 28:
                        weight = (1 - abs(y - r)) * (1 - abs(x - c))
                        result[row, column] += weight * image[r, c]
    return result


def test_no_turn_is_the_identity_and_quarters_are_those_of_the_grid():
    x = drawn()
    for quarters in range(5):
        turned = rotate(x, 90.0 * quarters).view(-1, 28, 28)
        assert torch.equal(turned, torch.rot90(x.view(-1, 28, 28), quarters, (1, 2)))


@pytest.mark.parametrize("degrees", [9.0, 49.5, 171.0, -30.0])
def test_other_turns_interpolate_and_are_black_outside(degrees):
    x = drawn(1)
    expected = by_loop(x.view(28, 28).double(), degrees)
    found = rotate(x, degrees)
    assert found.dtype == torch.uint8
    assert (found.view(28, 28) - expected).abs().max() <= 0.5 + 1e-2


def test_images_do_not_depend_on_those_beside_them(monkeypatch):
    monkeypatch.setattr("f3eo.bench.continual.streams.rotated.CHUNK", 2)
    x = drawn(5)
    alone = torch.cat([rotate(image[None], 33.0) for image in x])
    assert torch.equal(rotate(x, 33.0), alone)


def test_stages_are_nine_degrees_apart_and_begin_with_mnist(small_data):
    angles = [float(stage.name[:-1]) for stage in stages(5)]
    assert angles == [9.0 * number for number in range(20)]
    assert torch.equal(stages(5)[0].load().train.x, standardised(mnist("train")).x)
    upright, fourth = mnist("t10k"), stages(5)[3].test()
    turned = standardised(upright._replace(x=rotate(upright.x, 27.0)))
    assert torch.equal(fourth.x, turned.x) and torch.equal(fourth.y, upright.y)


def test_unseen_angles_are_halfway_or_beyond():
    angles = [float(stage.name[:-1]) for stage in unseen(0)]
    between = [angle for angle in angles if angle < 171]
    assert len(between) == 4 and all(angle % 9 == 4.5 for angle in between)
    assert [angle for angle in angles if angle > 171] == [180.0, 198.0, 216.0]
