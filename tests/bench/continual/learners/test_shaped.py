import pytest
import torch

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.learners.shaped import Shaped
from f3eo.bench.methods import METHODS, Stepper
from f3eo.bench.methods.method import GradientStepper


class Noted(Stepper):
    """Notes its name at every step."""

    def __init__(self, name, notes):
        self.name, self.notes, self.optimizers = name, notes, ()

    def step(self, closure, x, y):
        self.notes.append(self.name)


def test_the_last_part_of_the_first_stage_shapes_and_nothing_else():
    notes = []
    learner = Shaped(Noted("shape", notes), Noted("plain", notes), share=0.4)
    for stage, steps in enumerate((5, 3)):
        learner.begin(stage, steps)
        for _ in range(steps):
            learner.step(None, None, None)
    assert notes == ["plain"] * 3 + ["shape"] * 2 + ["plain"] * 3


OPTIONS = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.0}


def shaped_run(name, steps):
    """Parameters after some of the six steps of a first stage, whose last three shape."""
    model = small_model()
    learner = PEERS[name].build(model, PEERS[name].options(OPTIONS, {"share": 0.5}), 0)
    learner.begin(0, 6)
    for x, y in stage_batches(0)[:steps]:
        learner.step(closure_of(model), x, y)
    return flat(model)


@pytest.mark.parametrize("name", ["f3eo_shaped", "sam_shaped"])
def test_before_it_shapes_it_is_sgd_to_the_bit(name):
    model = small_model()
    sgd = METHODS["sgd"].build(model, OPTIONS, 0)
    for x, y in stage_batches(0)[:3]:
        sgd.step(closure_of(model), x, y)
    assert torch.equal(shaped_run(name, 3), flat(model))


@pytest.mark.parametrize(
    "name, method, base", [("f3eo_shaped", "f3eo", "base"), ("sam_shaped", "sam", "base_optimizer")]
)
def test_both_methods_share_the_momentum_of_one_base(name, method, base):
    model = small_model()
    shaping = METHODS[method].build(model, METHODS[method].options(OPTIONS), 0)
    plain = GradientStepper(getattr(shaping.optimizers[0], base))
    for number, (x, y) in enumerate(stage_batches(0)[:6]):
        (plain if number < 3 else shaping).step(closure_of(model), x, y)
    assert torch.equal(shaped_run(name, 6), flat(model))


def test_a_share_that_is_no_part_is_refused():
    with pytest.raises(ValueError, match=r"a part of the first stage in \(0, 1\], received 0"):
        Shaped(Noted("a", []), Noted("b", []), share=0)
