"""Something is not finite: the step is skipped, or raises, and leaves nothing behind."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from cases import WHOLE
from dense import relative
from f3eo import F3EO, DoubleBackward, FiniteDifference, MiniBatch, PerSample, Sign
from optimizer.helpers import BASES, batches, everything, losses, network, weights

NAN, INF = float("nan"), float("inf")


class Spoiled(torch.autograd.Function):
    """The identity, with a gradient that is finite or not."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None


class SpoiledTwice(torch.autograd.Function):
    """The identity; its gradient is the identity too, and the gradient of that is not finite."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return Spoiled.apply(g, ctx.factor), None


def loss_of(kind, model):
    """Losses that go bad in one of three places, in the last sample alone."""

    def closure(x, y):
        good = losses(model)(x, y)
        last = torch.arange(len(x)) == len(x) - 1
        if kind in ("nan", "inf"):
            return torch.where(last, good * float(kind), good)
        if kind == "-inf in the data":
            return losses(model)(torch.where(last[:, None], -INF, x), y)
        if kind == "gradient":
            return torch.where(last, Spoiled.apply(good, INF), good)
        if kind == "structure":
            z = model(x)
            return losses(lambda z: torch.where(last[:, None], SpoiledTwice.apply(z, NAN), z))(z, y)
        zero = model[0](x).sum(1) * 0
        if kind == "gradient at 0":  # √ has an infinite slope there
            return good + torch.where(last, zero, 1.0).sqrt() - (~last).to(good)
        # |z|^1.5 at z = 0 has slope 0 and an infinite curvature.
        nothing = model[0](x * 0).sum(1) - model[0].bias.sum()
        return good + torch.where(last, nothing, 1.0).abs().pow(1.5) - (~last).to(good)

    return closure


PLACES = {
    "nan": "the loss",
    "inf": "the loss",
    "-inf in the data": "the loss",
    "gradient": "the gradient",
    "gradient at 0": "the gradient",
    "structure": "the structure gradient",
    "curvature at 0": "the structure gradient",
}


def exact():
    return PerSample(DoubleBackward(), power=2)


def made(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    model.register_buffer("count", torch.zeros((), dtype=torch.int64))
    model.register_forward_pre_hook(lambda m, _: m.count.add_(1) and None)
    return model, F3EO(model, **WHOLE | {"base": Adam, "lr": 0.02} | options)


def same_but_random(before, after):
    return {k: v for k, v in before.items() if k not in ("random", "generator", "grads")} == {
        k: v for k, v in after.items() if k not in ("random", "generator", "grads")
    }


def steep(model):
    """Losses that are finite at these weights, and overflow uphill of them."""
    there = copy.deepcopy(model)

    def closure(x, y):
        moved = (model(x) - there(x).detach()).sum(1)
        return losses(model)(x, y) + torch.exp(1e13 * moved)

    return closure


CASES = [
    *((place, kind) for place in PLACES for kind in (exact, MiniBatch, Sign)),
    # A second derivative that is bad at one point alone is nothing that differences see.
    *((place, None) for place in PLACES if PLACES[place] != "the structure gradient"),
]


@pytest.mark.parametrize("warm", [0, 2])
@pytest.mark.parametrize(("place", "kind"), CASES)
def test_a_bad_step_is_skipped_counted_and_leaves_everything(place, kind, warm):
    model, optimizer = made(estimator=kind and kind(), every=2)
    for batch in batches(warm):
        optimizer.step(losses(model), *batch)
    before = everything(model, optimizer)
    with pytest.warns(UserWarning, match=f"^{PLACES[place]} is not finite.*skipped"):
        optimizer.step(loss_of(place, model), *batches(1)[0])
    assert same_but_random(before, everything(model, optimizer))
    assert (optimizer.steps, optimizer.skipped) == (warm, 1)
    optimizer.step(losses(model), *batches(1)[0])
    assert optimizer.steps == warm + 1 and weights(model).isfinite().all()


@pytest.mark.parametrize("place", ["nan", "gradient"])
@pytest.mark.parametrize("name", ["momentum", "adamw", "rmsprop_centered"])
def test_a_bad_step_leaves_every_base(place, name):
    row = network()
    optimizer = BASES[name].wrapped(row.model)
    optimizer.step(row.losses, *row.batch)
    before = everything(row.model, optimizer)
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(loss_of(place, row.model), *row.batch)
    assert same_but_random(before, everything(row.model, optimizer))


@pytest.mark.parametrize("options", [{"fraction": 0.5}, {"chunk": 2}, {"max_norm": 1.0}])
@pytest.mark.parametrize("place", PLACES)
def test_a_bad_step_is_skipped_under_every_option(place, options):
    generator = torch.Generator().manual_seed(0)
    model, optimizer = made(
        **options, estimator=PerSample(DoubleBackward(), power=2), generator=generator
    )
    optimizer.step(losses(model), *batches(1)[0])
    before = everything(model, optimizer)
    for _ in range(4):  # a fraction may miss the bad sample's structure gradient
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step(loss_of(place, model), *batches(1)[0])
        if optimizer.skipped:
            break
        before = everything(model, optimizer)
    assert optimizer.skipped == 1
    assert same_but_random(before, everything(model, optimizer))


@pytest.mark.parametrize("options", [{}, {"chunk": 2}])
def test_losses_that_overflow_uphill_are_measured_where_they_are(options, caplog):
    """A second pass finds them infinite, double backward does not go there."""
    found = []
    for estimator in (PerSample(), PerSample(DoubleBackward())):
        model, optimizer = made(**options, estimator=estimator)
        optimizer.step(losses(model), *batches(1)[0])
        optimizer.step(steep(model), *batches(1)[0])
        found.append(torch.cat([optimizer.trace[None], weights(model)]))
        assert optimizer.skipped == 0 and found[-1].isfinite().all()
    assert relative(*found) < 1e-6
    assert "by double backward" in caplog.text


@pytest.mark.parametrize(
    "estimator", [None, PerSample(DoubleBackward(), power=2)], ids=["default", "exact"]
)
def test_a_trace_that_overflows_skips_the_step(estimator):
    """The gradient is finite and its square is not: a difference has no step."""
    model, optimizer = made(estimator=estimator)
    model.float()
    before = weights(model)
    x, y = batches(1, dtype=torch.float32)[0]
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(lambda x, y: 1e25 * losses(model)(x, y), x, y)
    assert torch.equal(before, weights(model)) and optimizer.skipped == 1


def test_differences_find_a_bad_gradient_away_from_the_weights():
    """∇L is finite at θ and not at θ + εv: the structure gradient is not finite."""
    model, optimizer = made(estimator=MiniBatch(FiniteDifference()))
    before = everything(model, optimizer)
    with pytest.warns(UserWarning, match="the structure gradient is not finite"):
        optimizer.step(steep(model), *batches(1)[0])
    assert same_but_random(before, everything(model, optimizer))


def test_a_bad_gradient_outside_the_structure_term_counts():
    model = network().model
    groups = [
        {"params": model[0].parameters()},
        {"params": model[2:].parameters(), "structure": False},
    ]
    optimizer = F3EO(groups, SGD, lr=0.1, fraction=1, every=1)

    def closure(x, y, away=0.0):
        zero = model[4](model[:4](x).detach()).sum(1) * 0
        return losses(model)(x, y) + (zero + away).sqrt()

    batch = batches(1)[0]
    optimizer.step(lambda x, y: closure(x, y, 1.0), *batch)  # the first batch finds its way alone
    before = weights(model)
    with pytest.warns(UserWarning, match="the gradient is not finite"):
        optimizer.step(closure, *batch)
    assert torch.equal(before, weights(model))


def test_the_warning_comes_once_and_the_count_goes_on():
    model, optimizer = made()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for place in ("nan", "gradient", "nan"):
            optimizer.step(loss_of(place, model), *batches(1)[0])
    assert len(caught) == 1 and optimizer.skipped == 3
    assert caught[0].filename == __file__


def test_the_warning_comes_again_at_every_power_of_ten_with_the_count():
    model, optimizer = made()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # as a program has it: every text once a place
        for _ in range(3):
            optimizer.step(losses(model), *batches(1)[0])
        for _ in range(101):
            optimizer.step(loss_of("nan", model), *batches(1)[0])
    assert [str(w.message).split(" (")[0] for w in caught] == [
        "the loss is not finite: the step is skipped, as are all further ones of this kind",
        "the loss is not finite: 10 of 13 steps are skipped by now",
        "the loss is not finite: 100 of 103 steps are skipped by now",
    ]
    assert {w.filename for w in caught} == {__file__}


def test_the_loss_of_a_skipped_step_is_returned_as_it_is():
    model, optimizer = made()
    with pytest.warns(UserWarning):
        assert optimizer.step(loss_of("nan", model), *batches(1)[0]).isnan()


@pytest.mark.parametrize(("place", "kind"), [c for c in CASES if c[1] in (exact, None)])
def test_raise_leaves_random_states_and_grads_as_well(place, kind):
    generator = torch.Generator().manual_seed(1)
    options = {"estimator": kind and kind(), "fraction": 0.99, "generator": generator}
    model, optimizer = made(on_nonfinite="raise", **options)
    optimizer.step(losses(model), *batches(1)[0])
    before = everything(model, optimizer)
    bad = steep(model) if place == "steep" else loss_of(place, model)
    what = PLACES.get(place, "the structure gradient")

    def closure(x, y):
        return bad(nn.functional.dropout(x, 1e-9), y)

    with pytest.raises(FloatingPointError, match=rf'^{what} is not finite.*lower.*"skip"'):
        optimizer.step(closure, *batches(1)[0])
    assert everything(model, optimizer) == before
    assert optimizer.skipped == 0


def test_a_skipped_step_does_not_advance_schedules_of_the_strength():
    model, optimizer = made()
    optimizer.strength.schedule = lambda step: float(step)
    with pytest.warns(UserWarning):
        optimizer.step(loss_of("nan", model), *batches(1)[0])
    assert optimizer.strength.scheduled(optimizer.steps) == 0.0
