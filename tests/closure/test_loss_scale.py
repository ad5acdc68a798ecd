"""How a loss scale changes, and what makes one."""

import pytest
import torch

from f3eo import LossScale


def active(**options):
    scale = LossScale(8.0, **options)
    scale.see(torch.ones(2, dtype=torch.float16, requires_grad=True))
    return scale


def test_it_halves_at_an_overflow_and_doubles_after_an_interval():
    scale, seen = active(interval=3), []
    for finite in (True, True, False, True, True, True, True, True, True):
        if finite:
            scale.pass_on()
        else:
            assert scale.back_off(scale.factor)
        seen.append(scale.factor)
    assert seen == [8, 8, 4, 4, 4, 8, 8, 8, 16]


def test_it_changes_as_that_of_torch():
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=4, growth_factor=3.0)
    scaler.scale(torch.ones(()))
    scale = LossScale.of(scaler)
    scale.see(torch.ones(2, dtype=torch.float16, requires_grad=True))
    weight = torch.zeros(2, requires_grad=True)
    sgd = torch.optim.SGD([weight], lr=1.0)
    for step in range(40):
        finite = step % 7 != 5
        weight.grad = torch.full((2,), 1.0 if finite else torch.inf)
        scaler.step(sgd)
        scaler.update()
        scale.pass_on() if finite else scale.back_off(scale.factor)
        assert scale.factor == scaler.get_scale(), step


def test_it_does_not_fall_below_one():
    scale = active(backoff=0.3)
    assert [scale.back_off(scale.factor) for _ in range(5)] == [True] * 2 + [False] * 3
    assert scale.factor == 1 and scale.scale == 1


def test_it_follows_the_largest_of_several_processes():
    idle = LossScale(8.0)  # its batches were empty
    assert idle.back_off(8.0) and idle.scale == 4 and idle.factor == 1


def test_it_goes_on_from_its_counters():
    scale = active(interval=3)
    scale.back_off(8.0)
    scale.pass_on()
    twin = LossScale(16.0)
    twin.load(scale.counters())
    assert (twin.scale, twin.passed, twin.interval) == (4, 1, 3)
    older = LossScale(8.0)
    older.load({"steps": 3})
    assert older.scale == 8


def test_the_state_of_one_that_has_not_begun_takes_it_back_there():
    scale = LossScale()
    begun = scale.counters()
    scale.factor = scale.scale
    scale.back_off(scale.factor)
    scale.pass_on()
    assert (scale.scale, scale.passed) == (2.0**14, 1)
    scale.load(begun)
    assert (scale.scale, scale.passed) == (2.0**15, 0)


BAD = {
    "initial": ({"initial": 0.5}, r"initial >= 1, received 0\.5"),
    "infinite": ({"initial": float("inf")}, "finite initial"),
    "growth": ({"growth": 1.0}, r"growth > 1, received 1\.0"),
    "backoff": ({"backoff": 1.0}, r"backoff in \(0, 1\), received 1\.0"),
    "interval": ({"interval": 0}, "interval >= 1 steps, received 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_arguments_out_of_range_are_refused(name):
    options, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        LossScale(**options)


def test_it_is_made_from_what_users_have():
    own = LossScale(4.0)
    assert LossScale.of(own) is own
    assert LossScale.of(None).initial == 2**15 and LossScale.of(1024).initial == 1024
    assert LossScale.of(torch.amp.GradScaler("cpu", enabled=False)).initial == 2**15
    with pytest.raises(TypeError, match=r"GradScaler, or None.*received 'dynamic'"):
        LossScale.of("dynamic")
