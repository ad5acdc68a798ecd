"""How strong the structure term is: strengths, schedules, bounds, in lengths of the gradient."""

import pytest
import torch
from torch.optim import SGD, Adam

from cases import WHOLE
from dense import relative, truth
from f3eo import (
    F3EO,
    Cap,
    Coupled,
    Decoupled,
    DoubleBackward,
    Fitted,
    Fixed,
    PerSample,
    Ratio,
    Warmup,
)
from f3eo.extend import DecoupledPerTensor, Direct
from optimizer.helpers import (
    Counting,
    batches,
    flat,
    gradient,
    network,
    structure_term,
    weights,
)


def exact(model, **options):
    """With h exact to rounding."""
    return F3EO(
        model, SGD, lr=0.1, estimator=PerSample(DoubleBackward(), power=2), **WHOLE | options
    )


@pytest.mark.parametrize("rule", [Coupled(), Decoupled(), DecoupledPerTensor()])
def test_ratio_sets_the_length(rule):
    """‖λd‖ = κ‖g‖."""
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, rule=rule, strength=Ratio(0.37), fraction=1, every=1)
    for batch in batches(4):
        part, g = structure_term(row, batch, optimizer)
        assert float(part.norm()) == pytest.approx(0.37 * float(g.norm()), rel=1e-12)


def test_fixed_sets_the_multiplier_and_cap_bounds_the_length():
    """With the trace a cap is of ∇√Tr F = h/√Tr F, and a fixed strength of h = ½∇Tr F."""
    row = network()
    wanted = truth(row.model, row.losses, *row.batch)
    h, root = wanted.structure, wanted.trace.sqrt()
    ratio = float(h.norm() / flat(gradient(row.model, row.batch)).norm())
    for limit, expected in ((2 * ratio, 0.5 / root), (ratio / 4, 0.25)):
        row = network()
        strength = Cap(0.5, limit=limit)
        optimizer = exact(row.model, rule=Coupled(), strength=strength)
        part, _ = structure_term(row, row.batch, optimizer)
        assert relative(part, expected * h) < 1e-10
    row = network()
    optimizer = exact(row.model, rule=Coupled(), strength=Fixed(0.5))
    assert relative(structure_term(row, row.batch, optimizer)[0], 0.5 * h) < 1e-10


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Warmup(4), [0.25, 0.5, 0.75, 1, 1, 1]),
        (Warmup(2, delay=2), [0, 0, 0.5, 1, 1, 1]),
        (lambda step: step % 2, [0, 1, 0, 1, 0, 1]),
    ],
)
def test_a_schedule_multiplies_the_strength(schedule, factors):
    row = network()
    counting = Counting()
    strength = Ratio(0.4, schedule)
    optimizer = F3EO(
        row.model, SGD, lr=0.1, strength=strength, estimator=counting, fraction=1, every=1
    )
    found = []
    for batch in batches(6):
        part, g = structure_term(row, batch, optimizer)
        found.append(float(part.norm() / g.norm()))
    assert found == pytest.approx([0.4 * f for f in factors], rel=1e-9, abs=1e-12)
    assert len(counting.sizes) == sum(f > 0 for f in factors)  # nothing is measured for nothing


@pytest.mark.parametrize("parts", [1, 2])
def test_fitted_is_a_strength_times_the_probability_of_the_whole_batchs_labels(parts):
    row = network()
    wanted = truth(row.model, row.losses, *row.batch)
    x, y = row.batch
    optimizer = exact(row.model, rule=Coupled(), strength=Fitted(0.5, limit=1e9))
    for part in zip(x.chunk(parts), y.chunk(parts), strict=True):
        optimizer.accumulate(row.losses, *part)
    g = flat(gradient(row.model, row.batch))
    optimizer.step()
    found = flat(p.grad for p in row.model.parameters()) - g
    row = network()  # as before the step
    factor = 0.5 * float(torch.exp(-row.losses(*row.batch).detach().mean()))
    assert 0 < factor < 0.4
    assert relative(found, factor * wanted.structure / wanted.trace.sqrt()) < 1e-10


@pytest.mark.parametrize("base", [SGD, Adam])
def test_fitted_takes_the_loss_of_the_measured_step(base):
    """Where everything is fitted there it is `Cap`, where nothing is it is the base alone."""
    found = {}
    for loss in (-100.0, 17.0):  # a constant on the losses leaves all gradients alone
        for strength in (Fitted(0.3), Cap(0.3), Fixed(0.0)):
            row = network()
            options = {"estimator": PerSample(), "strength": strength, "every": 2, "fraction": 1}
            optimizer = F3EO(row.model, base, lr=0.1, **options)
            for k, (x, y) in enumerate(batches(4)):
                level = -83.0 - loss if k % 2 else loss  # the other one between measurements
                optimizer.step(lambda x, y, m=row, c=level: m.losses(x, y) + c, x, y)
            found[loss, type(strength)] = weights(row.model)
    assert torch.equal(found[-100.0, Fitted], found[-100.0, Cap])
    assert relative(found[17.0, Fitted], found[17.0, Fixed]) < 1e-6
    assert relative(found[17.0, Cap], found[17.0, Fixed]) > 1e-4


def test_fitted_says_of_a_training_whose_loss_no_classifier_has_that_it_does_nothing():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, strength=Fitted(0.04), fraction=1, every=1)
    with pytest.warns(UserWarning, match=r"Fitted\(0.04\).*: .*Cap\(0.04\)") as warned:
        for x, y in batches(3):
            optimizer.step(lambda x, y: row.losses(x, y) + 40, x, y)
    assert sum("Fitted" in str(w.message) for w in warned) == 1


@pytest.mark.parametrize(
    ("maximized", "sign"), [((False, False), 1), ((True, False), 1), ((True, True), -1)]
)
def test_fitted_takes_a_likelihood_where_all_groups_maximize(maximized, sign):
    """What the closure returned is then −ℓ; where only some do it is taken as it is."""
    row = network()
    groups = [
        {"params": part.parameters(), "maximize": maximize}
        for part, maximize in zip((row.model[0], row.model[2:]), maximized, strict=True)
    ]
    seen = []

    class Seeing(Fitted):
        def at(self, observed):
            seen.append(observed.loss)
            return super().at(observed)

    optimizer = F3EO(groups, SGD, lr=0.1, strength=Seeing(0.3), fraction=1, every=1)
    optimizer.step(lambda x, y: sign * row.losses(x, y), *row.batch)
    assert seen[-1] == pytest.approx(float(network().losses(*row.batch).detach().mean()), rel=1e-6)


# Max_norm.


@pytest.mark.parametrize("structure", [True, False])
def test_max_norm_scales_both_parts_of_the_update_by_one_factor(structure):
    """∇L as clip_grad_norm_ scales it, groups out of the structure term included."""
    grads = {}
    for bound in (None, 0.05):
        row = network()
        g = flat(gradient(row.model, row.batch))
        groups = [
            {"params": row.model[0].parameters()},
            {"params": row.model[2:].parameters(), "structure": structure},
        ]
        optimizer = F3EO(groups, SGD, lr=0.1, max_norm=bound, fraction=1, every=1)
        optimizer.step(row.losses, *row.batch)
        grads[bound] = flat(p.grad for p in row.model.parameters())
    assert float(g.norm()) > 0.1
    assert relative(grads[0.05], 0.05 / (g.norm() + 1e-6) * grads[None]) < 1e-9


def test_max_norm_reaches_the_structure_term_in_the_metric_of_adam_too():
    """Adam's first step does not depend on the scale of its gradients, nor may the term's."""
    found = []
    for bound in (None, 0.01):
        row = network()
        optimizer = F3EO(row.model, Adam, lr=0.1, eps=1e-16, max_norm=bound, fraction=1, every=1)
        g = flat(gradient(row.model, row.batch))
        optimizer.step(row.losses, *row.batch)
        found.append(weights(row.model))
    moments = [optimizer.base.state[p]["exp_avg"] for p in row.model.parameters()]
    assert relative(flat(moments), 0.1 * 0.01 / (g.norm() + 1e-6) * g) < 1e-9
    assert relative(*found) < 1e-9


def test_max_norm_leaves_shorter_gradients_alone():
    found = []
    for bound in (None, 1e3):
        row = network()
        optimizer = F3EO(row.model, SGD, lr=0.1, max_norm=bound, fraction=1, every=1)
        for batch in batches(3):
            optimizer.step(row.losses, *batch)
        found.append(weights(row.model))
    assert torch.equal(*found)


def test_max_norm_bounds_a_run_that_would_explode():
    row = network()
    optimizer = F3EO(
        row.model,
        SGD,
        lr=1.0,
        max_norm=0.1,
        strength=Fixed(1e4),
        rule=Decoupled(),
        fraction=1,
        every=1,
    )
    before = weights(row.model)
    optimizer.step(lambda x, y: 1e6 * row.losses(x, y), *row.batch)
    g = flat(p.grad for p in row.model.parameters())
    assert g.isfinite().all() and torch.equal(weights(row.model), before - g)


def test_direct_leaves_the_loss_gradient_out():
    row = network()
    h = truth(row.model, row.losses, *row.batch).structure
    exact(row.model, rule=Direct(), strength=Fixed(3.0)).step(row.losses, *row.batch)
    assert relative(flat(p.grad for p in row.model.parameters()), 3 * h) < 1e-12
