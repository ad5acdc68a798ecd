"""Observers: each step is told once, as measured; an observed run is the same to the bit."""

import copy
import pickle

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW

from cases import case
from dense import relative, truth
from f3eo import F3EO, Cap, Coupled, DoubleBackward, Fixed, PerSample
from f3eo.extend import Direct
from optimizer.helpers import UNKNOWN, batches, everything, flat, gradient, losses, network, weights

EXACT = {"estimator": PerSample(DoubleBackward(), power=2), "fraction": 1, "every": 1}


def observed(optimizer):
    records = []
    optimizer.observe(records.append)
    return records


@pytest.mark.parametrize("base", [SGD, AdamW, torch.optim.Adadelta])
@pytest.mark.parametrize("options", [{}, {"fraction": 0.5, "every": 2}, {"chunk": 4}])
@pytest.mark.filterwarnings(UNKNOWN)
def test_an_observed_run_is_the_same_to_the_bit(base, options):
    found = []
    for watched in (False, True):
        torch.manual_seed(3)
        row = network()
        optimizer = F3EO(row.model, base, lr=0.05, **options)
        records = observed(optimizer) if watched else []
        for batch in batches(7):
            optimizer.step(row.losses, *batch)
        found.append(everything(row.model, optimizer))
        assert [r.number for r in records] == list(range(7)) * watched
    assert found[0] == found[1]


@pytest.mark.parametrize("rule", [None, Coupled(), Direct()])
@pytest.mark.parametrize("base", [SGD, AdamW])
def test_a_record_has_what_the_step_measured(base, rule):
    """Against the dense truth; AdamW projects in its own metric, lengths are Euclidean."""
    row = network()
    optimizer = F3EO(row.model, base, lr=0.01, rule=rule, strength=Fixed(0.5), **EXACT)
    (batch,) = batches(1)
    expected = truth(row.model, row.losses, *batch)
    g, h, before = expected.gradient, expected.structure, weights(row.model)
    records = observed(optimizer)
    loss = optimizer.step(row.losses, *batch)
    (r,) = records
    assert r.loss is loss and r.number == 0 and optimizer.steps == 1
    assert relative(flat(r.gradient), g) < 1e-11 and relative(flat(r.structure), h) < 1e-11
    assert r.squared == pytest.approx(float(g @ g)) and r.products.gg == pytest.approx(r.squared)
    assert r.products.gh == pytest.approx(float(g @ h))
    assert r.products.hh == pytest.approx(float(h @ h))
    assert relative(r.trace, expected.trace) < 1e-11 and r.trace is optimizer.trace
    assert r.norms.contributions().sum() == pytest.approx(float(expected.trace))
    assert r.strength == 0.5 and r.factor == 1
    if base is SGD:
        direction = (before - weights(row.model)) / 0.01
        direction = direction if isinstance(rule, Direct) else direction - g
        assert r.distance * r.strength == pytest.approx(float(direction.norm()))


def test_the_strength_of_a_record_counts_for_all_the_steps_it_serves():
    row = network()
    optimizer = F3EO(row.model, AdamW, lr=0.01, strength=Fixed(0.5), every=3)
    records = observed(optimizer)
    for batch in batches(4):
        optimizer.step(row.losses, *batch)
    assert [r.strength for r in records] == [1.5, None, None, 1.5]
    assert [r.structure is None for r in records] == [False, True, True, False]
    assert [r.trace is None for r in records] == [False, True, True, False]
    assert [r.distance is None for r in records] == [False, True, True, False]


def test_the_structured_parameters_are_told_with_their_names():
    model = network().model
    groups = [
        {"params": list(model[0].named_parameters("0")), "structure": False},
        {"params": list(model[2].named_parameters("2"))},
    ]
    groups = [{**g, "params": [(n, p) for n, p in g["params"]]} for g in groups]
    optimizer = F3EO(groups, SGD, lr=0.1, **EXACT)
    model[4].requires_grad_(False)
    records = observed(optimizer)
    (batch,) = batches(1)
    g = gradient_of(model, batch)
    optimizer.step(losses(model), *batch)
    (r,) = records
    assert r.names == ["2.weight", "2.bias"] and r.parameters[0] is model[2].weight
    assert r.squared == pytest.approx(sum(float(x.square().sum()) for x in g))
    assert r.products.gg == pytest.approx(sum(float(x.square().sum()) for x in g[2:]))
    assert r.norms.trace_by_leaf().keys() == {id(p) for p in model[2].parameters()}


def gradient_of(model, batch):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(losses(model)(*batch).mean(), trained)


def test_parameters_without_names_are_told_by_their_positions():
    row = network()
    optimizer = F3EO(list(row.model.parameters()), SGD, lr=0.1, **EXACT)
    records = observed(optimizer)
    optimizer.step(row.losses, *row.batch)
    assert records[0].names == list("012345")


def test_a_step_that_maximizes_is_told_uphill_on_its_loss():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, maximize=True, **EXACT)
    records = observed(optimizer)
    optimizer.step(lambda x, y: -row.losses(x, y), *row.batch)
    g = flat(gradient(network().model, row.batch))
    assert relative(flat(records[0].gradient), g) < 1e-11 and records[0].loss < 0


@pytest.mark.parametrize("sizes", [(6,), (4, 2), (1, 5)])
def test_micro_batches_are_told_as_one_step(sizes):
    c = case("mlp")
    optimizer = F3EO(c.model, SGD, lr=0.1, **EXACT)
    records = observed(optimizer)
    expected = truth(c.model, c.losses, *c.batch)
    for part in zip(*(t.split(sizes) for t in c.batch), strict=True):
        optimizer.accumulate(c.losses, *part)
    assert records == []
    optimizer.step()
    (r,) = records
    assert relative(r.norms.contributions(), expected.squared_norms / 6) < 1e-11
    assert r.norms.squared_shares() == pytest.approx(1 / 6)
    assert relative(flat(r.gradient), expected.gradient) < 1e-11


def test_what_was_done_to_grad_is_told_as_a_factor():
    c = case("mlp")
    optimizer = F3EO(c.model, SGD, lr=0.1, **EXACT)
    records = observed(optimizer)
    for change in (0.25, None):
        optimizer.accumulate(c.losses, *c.batch)
        length = float(clip_grad_norm_(c.model.parameters(), torch.inf))
        if change is not None:
            clip_grad_norm_(c.model.parameters(), change * length)
            optimizer.step()
        else:
            c.model[0].weight.grad.zero_()
            with pytest.warns(UserWarning, match="no common factor"):
                optimizer.step()
    first, second = records
    assert first.factor == pytest.approx(0.25, rel=1e-5) and second.factor is None


def test_norms_of_micro_batches_before_a_change_are_dropped():
    """The gradient of the first was scaled, its norms were not."""
    c = case("mlp")
    optimizer = F3EO(c.model, SGD, lr=0.1, **EXACT)
    records = observed(optimizer)
    optimizer.accumulate(c.losses, *c.batch)
    for p in c.model.parameters():
        p.grad.mul_(0.5)
    optimizer.accumulate(c.losses, *c.batch)
    optimizer.step()
    assert records[0].norms is None and records[0].trace is not None


def test_a_gradient_is_told_before_max_norm():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, max_norm=1e-3, strength=Cap(0.1))
    records = observed(optimizer)
    g = flat(gradient(row.model, row.batch))
    optimizer.step(row.losses, *row.batch)
    assert records[0].squared ** 0.5 == pytest.approx(float(g.norm()))


def test_a_skipped_step_is_not_told():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1)
    records = observed(optimizer)
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(lambda x, y: row.losses(x, y) * torch.nan, *row.batch)
    optimizer.step(row.losses, *row.batch)
    assert [r.number for r in records] == [0]


def test_an_observer_is_removed_alone_and_no_part_of_copies():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1)
    first, second = [], []
    handle = optimizer.observe(first.append)
    optimizer.observe(second.append)
    optimizer.step(row.losses, *row.batch)
    handle.remove()
    for made in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert not made._observers
    optimizer.step(row.losses, *row.batch)
    assert (len(first), len(second)) == (1, 2)


def test_an_observer_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"function of a StepRecord, received 3.*f3eo\.monitor"):
        F3EO(network().model, SGD, lr=0.1).observe(3)


def test_a_step_that_fails_is_not_told_and_an_observer_that_fails_comes_after_the_step():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1)

    def fail(record):
        raise KeyError(record.number)

    optimizer.observe(fail)
    before = weights(row.model)
    with pytest.raises(KeyError):
        optimizer.step(row.losses, *row.batch)
    assert optimizer.steps == 1 and not torch.equal(before, weights(row.model))
