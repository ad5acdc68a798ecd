import pytest
import torch
from torch import nn

from f3eo.bench.methods import METHODS
from f3eo.bench.methods import count as module
from f3eo.bench.methods.count import count
from f3eo.bench.methods.method import Method, Stepper

pytestmark = pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
COST = {  # by hand: forwards are 1/3 of a plain gradient, backwards 2/3
    "sgd": 1,
    "adamw": 1,
    "muon": 1,  # its own products do not grow with the batch
    "soap": 1,
    "shampoo": 1,
    "adamw_free": 1,
    "sam": 2,
    "asam": 2,
    "gsam": 2,
    "wsam": 2,
    "fsam": 2,
    "looksam": (2 + 4) / 5,  # two gradients every fifth step
    "partial_sam": 1 + 1 / 4,  # a quarter of the batch climbs
    "msam": 1,
    "ema": 1,
    "schedule_free": 1,
    "last_layer": 1,
    "lbfgs": 4,
    "adahessian": 3,  # 1 for the gradient, 2 for the double backward
    "sophia": (3 + 9) / 10,
    "ivon": 1,
    "gauss_newton": 2 + 4 / 3 * (4 + 1),  # four products, and one for the promised reduction
}


@pytest.mark.parametrize("method", COST)
def test_the_count_is_what_the_algorithm_says(method):
    assert count(method, METHODS[method].options()).gradient_equivalents == pytest.approx(
        COST[method]
    )


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_f3eo_costs_what_it_says_it_costs(fraction, every):
    found = count("f3eo", METHODS["f3eo"].options({"fraction": fraction, "every": every}))
    assert found.gradient_equivalents == pytest.approx(1 + fraction / every, abs=1e-6)


def test_newton_is_charged_what_conjugate_gradients_take_at_most():
    found = count("newton_cg", METHODS["newton_cg"].options({"radius": 1e6})).gradient_equivalents
    assert 4 < found <= 4 / 3 + 2 * (4 + 1) + 1e-6


def test_psgd_with_hessian_products_takes_them():
    """heavyball's own default interval takes none; see the note of the method."""
    options = METHODS["psgd_newton"].options()
    assert count("psgd_newton", options).gradient_equivalents == pytest.approx(2.0)
    plain = count("psgd", METHODS["psgd"].options()).gradient_equivalents
    assert plain == pytest.approx(1.0)


def test_calls_of_the_closure_are_counted():
    assert count("lbfgs", METHODS["lbfgs"].options({"max_iter": 7})).calls == 7
    assert count("sophia", METHODS["sophia"].options()).calls == 1


def test_a_method_is_counted_not_believed(monkeypatch):
    class Forwards(Stepper):
        """Two forward passes and nothing else, whatever it may claim."""

        gradient_equivalents = 99.0
        optimizers = ()

        def step(self, closure, x, y):
            with torch.no_grad():
                return closure(x, y).mean() + closure(x, y).mean()

    fake = Method("fake", "", "", 1, "", "", METHODS["sgd"].source, {}, lambda *_: Forwards())
    monkeypatch.setitem(METHODS, "fake", fake)
    assert count("fake", {}) == (pytest.approx(2 / 3, abs=1e-6), 2)


def test_nothing_is_drawn_from_the_global_generator():
    module._count.cache_clear()
    before = torch.get_rng_state()
    count("ivon", METHODS["ivon"].options())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_double_backward_counts_what_it_makes():
    """By hand, on one layer: y = Wx; the Hessian product has W and x on both sides."""

    def build(model):
        class Double(Stepper):
            optimizers = ()

            def step(self, closure, x, y):
                weight = model[1].weight
                loss = closure(x, y).mean()
                (g,) = torch.autograd.grad(loss, weight, create_graph=True)
                torch.autograd.grad(g.sum(), weight)
                return loss.detach()

        return Double()

    samples, _ = module._work(build)
    unit = 2 * module.BATCH * module.WIDTH**2 * module.STEPS
    # 3 forwards; backwards the inputs of 2 layers and 1 weight; for the product once more the
    # weight, up through the 2 layers and down through them, and the weight.
    assert samples / unit == 3 + (2 + 1) + (1 + 2 + 2 + 1)
    assert isinstance(module.network()[0], nn.LayerNorm)
