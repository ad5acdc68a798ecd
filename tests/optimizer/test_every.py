"""every=k: the structure term joins the measured step alone, k times as strong."""

import copy
import gc
import pickle

import pytest
import torch
from torch.optim import SGD, Adam

from dense import relative, truth
from f3eo import (
    F3EO,
    Cap,
    Coupled,
    Decoupled,
    DoubleBackward,
    Fixed,
    PerSample,
    Ratio,
    Warmup,
)
from f3eo.direction import metric
from f3eo.extend import Direct
from optimizer.helpers import (
    BASES,
    UNKNOWN,
    Counting,
    batches,
    bits,
    flat,
    gradient,
    losses,
    network,
    structure_term,
    weights,
)


def trace(**options):
    """The estimator whose h the dense truth gives."""
    return {"estimator": PerSample(DoubleBackward(), power=2), "fraction": 1} | options


@pytest.mark.parametrize("base", [SGD, Adam])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_h_is_measured_each_so_many_steps_only(every, base):
    row = network()
    counting = Counting()
    calls = []
    optimizer = F3EO(row.model, base, lr=0.05, every=every, estimator=counting, fraction=1)

    def closure(x, y):
        calls.append(len(x))
        return row.losses(x, y)

    traces = []
    for batch in batches(7):
        optimizer.step(closure, *batch)
        traces.append(float(optimizer.trace))
    assert len(counting.sizes) == len(range(0, 7, every))
    assert len(calls) == 7  # one forward pass a step in any case
    assert len(set(traces)) == len(range(0, 7, every))


RULES = {  # c of d = h − c g
    "coupled": (Coupled(), lambda h, g: h),
    "decoupled": (Decoupled(), lambda h, g: h - (h @ g) / (g @ g) * g),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_measured_step_counts_for_all_and_those_between_have_no_structure_term(rule):
    """.grad = g + k λ d at every k-th step, g to the bit at the others; h from the dense truth."""
    row = network()
    rule, across = RULES[rule]
    optimizer = F3EO(row.model, SGD, lr=0.05, every=3, rule=rule, strength=Ratio(0.3), **trace())
    for k, batch in enumerate(batches(7)):
        h = truth(row.model, row.losses, *batch).structure
        part, g = structure_term(row, batch, optimizer)
        if k % 3:
            assert not part.any()
        else:
            d = across(h, g)
            assert relative(part, 3 * 0.3 * g.norm() / d.norm() * d) < 1e-9


@pytest.mark.parametrize("every", [2, 5])
def test_in_a_metric_the_measured_step_counts_for_all(every):
    """θ − θ_base = −lr k D λh⊥."""
    row = network()
    optimizer = F3EO(row.model, Adam, lr=0.01, every=every, strength=Ratio(0.3), **trace())
    for k, batch in enumerate(batches(6)):
        alone = copy.deepcopy(row.model)
        plain = Adam(alone.parameters(), lr=0.01)
        plain.load_state_dict(copy.deepcopy(optimizer.base.state_dict()))
        g, h = gradient(alone, batch), truth(row.model, row.losses, *batch).structure
        for p, value in zip(alone.parameters(), g, strict=True):
            p.grad = value
        plain.step()
        optimizer.step(row.losses, *batch)
        part = weights(row.model) - weights(alone)
        if k % every:
            assert not part.any()
            continue
        g, diagonal = flat(g), flat(metric(plain, list(alone.parameters())))
        d = h - (h @ (diagonal * g)) / (g @ (diagonal * g)) * g
        length = ((diagonal * g) @ g).sqrt() / ((diagonal * d) @ d).sqrt()
        assert relative(part, -0.01 * every * 0.3 * length * diagonal * d) < 1e-9


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize("name", BASES)
def test_between_measurements_the_step_is_that_of_the_base_bit_for_bit(name):
    """Weights and state of the base; with the default estimator, rule and strength."""
    row = BASES[name]
    case = network(row)
    optimizer, same = row.wrapped(case.model, every=3), []
    for k, batch in enumerate(batches(6)):
        model, plain = copy.deepcopy((case.model, optimizer.base))
        vars(plain).update(vars(optimizer.base) | vars(plain))  # a copy of SOAP lacks some
        plain.zero_grad()
        losses(model)(*batch).mean().backward()
        plain.step()
        optimizer.step(case.losses, *batch)
        ours, theirs = optimizer.base.state_dict()["state"], plain.state_dict()["state"]
        same.append(torch.equal(weights(case.model), weights(model)) and bits(ours) == bits(theirs))
        assert same[k] or k % 3 == 0
    assert not same[3]  # at the first step SOAP moves nothing


def test_a_limit_holds_before_the_factor():
    """λ = min(value, limit ‖g‖/‖d‖), and k λ d joins."""
    row = network()
    strength = Cap(1e6, limit=0.5)
    optimizer = F3EO(row.model, SGD, lr=0.05, every=4, strength=strength, **trace())
    part, g = structure_term(row, row.batch, optimizer)
    assert float(part.norm()) == pytest.approx(4 * 0.5 * float(g.norm()), rel=1e-12)


@pytest.mark.parametrize("every", [1, 4])
def test_max_norm_bounds_g_and_the_structure_term_keeps_its_share(every):
    row, free = network(), network()
    parts = []
    for case, bound in ((row, 0.01), (free, None)):
        options = {"strength": Ratio(0.3), "every": every, "max_norm": bound}
        optimizer = F3EO(case.model, SGD, lr=0.05, **trace(**options))
        g = flat(gradient(case.model, case.batch))
        optimizer.step(case.losses, *case.batch)
        factor = 1.0 if bound is None else float(bound / (g.norm() + 1e-6))
        parts.append((flat(p.grad for p in case.model.parameters()) - factor * g) / factor)
    assert relative(*parts) < 1e-9
    assert float(parts[0].norm()) == pytest.approx(0.3 * every * float(g.norm()), rel=1e-9)


@pytest.mark.parametrize("base", [SGD, Adam])
def test_a_rule_that_replaces_the_gradient_measures_at_every_step(base):
    """Between two measurements it would have nothing to descend."""
    found = []
    for every in (1, 4):
        row, counting = network(), Counting()
        options = {"rule": Direct(), "strength": Fixed(0.5), "estimator": counting, "fraction": 1}
        optimizer = F3EO(row.model, base, lr=0.05, every=every, **options)
        for batch in batches(5):
            h = truth(row.model, row.losses, *batch).structure
            optimizer.step(row.losses, *batch)
            assert relative(flat(p.grad for p in row.model.parameters()), 0.5 * h) < 1e-9
        assert len(counting.sizes) == 5
        found.append(weights(row.model))
    assert torch.equal(*found)


def test_a_delay_puts_the_first_structure_term_off_to_the_next_measurement():
    row = network()
    counting = Counting()
    strength = Ratio(0.3, Warmup(1, delay=3))
    options = {"strength": strength, "estimator": counting, "fraction": 1}
    optimizer = F3EO(row.model, SGD, lr=0.05, every=2, **options)
    lengths = [float(structure_term(row, batch, optimizer)[0].norm()) for batch in batches(7)]
    assert [length > 1e-6 for length in lengths] == [k in (4, 6) for k in range(7)]
    assert len(counting.sizes) == 2  # nothing is measured for nothing


def test_a_skipped_measurement_is_made_up_for_by_the_next_step():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.05, every=3, strength=Ratio(0.3), **trace())
    for batch in batches(3):
        optimizer.step(row.losses, *batch)
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(lambda x, y: row.losses(x, y) * torch.nan, *row.batch)
    part, g = structure_term(row, row.batch, optimizer)
    assert float(part.norm()) == pytest.approx(0.9 * float(g.norm()), rel=1e-9)


# Nothing is kept.


def test_nothing_is_kept_between_measurements():
    """Neither in the state, nor in what a copy takes along, nor as a tensor elsewhere."""
    sizes, tensors = {}, {}
    for every in (1, 5):
        row = network()
        generator = torch.Generator().manual_seed(0)
        optimizer = F3EO(row.model, Adam, lr=0.05, every=every, generator=generator)
        gc.collect()
        for batch in batches(1):
            optimizer.step(losses(row.model), *batch)
        entries = optimizer.state_dict()["state"].values()
        assert {key for entry in entries for key in entry} == {"base", "f3eo"}
        sizes[every] = len(pickle.dumps((row.model, optimizer)))
        gc.collect()
        tensors[every] = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        del optimizer, row, entries
    assert sizes[1] == sizes[5] and tensors[1] == tensors[5]
