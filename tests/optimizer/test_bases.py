"""Every base optimizer: itself at strength zero, undisturbed in its metric otherwise."""

import copy
import io

import pytest
import torch

from dense import relative, truth
from f3eo import (
    F3EO,
    Cap,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    PerSample,
    Ratio,
    Warmup,
    fisher_trace,
)
from f3eo.direction import metric
from f3eo.extend import Direct
from optimizer.helpers import (
    BASES,
    PRECONDITIONED,
    UNKNOWN,
    batches,
    bits,
    flat,
    gradient,
    losses,
    network,
    weights,
)

ZEROS = {
    "ratio": lambda: Ratio(0),
    "fixed": lambda: Fixed(0.0),
    "schedule": lambda: Cap(5.0, schedule=lambda step: 0),
    "delay": lambda: Ratio(0.3, Warmup(5, delay=100)),
}


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("name", BASES)
def test_strength_zero_is_the_base_bit_for_bit(name, zero):
    row = BASES[name]
    case, alone = network(row), network(row)
    plain = row.plain(alone.model.parameters())
    optimizer = row.wrapped(case.model, strength=ZEROS[zero]())
    for batch in batches(10):
        plain.zero_grad()
        loss = alone.losses(*batch).mean()
        loss.backward()
        plain.step()
        assert torch.equal(optimizer.step(case.losses, *batch), loss.detach())
        assert torch.equal(weights(case.model), weights(alone.model))
    ours = optimizer.base.state_dict()["state"]
    assert bits(ours) == bits(plain.state_dict()["state"])


@pytest.mark.parametrize("rule", [Coupled(), Direct(), Decoupled()])
def test_strength_zero_is_the_base_whatever_the_rule_and_in_float32(rule):
    models = network().model.float(), network().model.float()
    plain = torch.optim.Adam(models[0].parameters(), lr=0.01)
    optimizer = F3EO(
        models[1], torch.optim.Adam, lr=0.01, rule=rule, strength=Fixed(0), fraction=0.5, every=1
    )
    for batch in batches(10, dtype=torch.float32):
        plain.zero_grad()
        losses(models[0])(*batch).mean().backward()
        plain.step()
        optimizer.step(losses(models[1]), *batch)
    assert torch.equal(weights(models[0]), weights(models[1]))


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize("name", BASES)
def test_every_base_trains(name):
    row = BASES[name]
    case = network(row)
    optimizer = row.wrapped(case.model)
    first = optimizer.step(case.losses, *case.batch)
    for _ in range(40):
        last = optimizer.step(case.losses, *case.batch)
    assert optimizer.skipped == 0
    assert last < 0.8 * first


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "soap", "sgd_free", "adamw_free"])
def test_loss_and_trace_fall_and_the_trace_below_that_of_the_base_alone(name):
    row, traces = BASES[name], []
    for strength in (Ratio(0), Ratio(0.7)):
        case = network(row)
        optimizer = row.wrapped(case.model, estimator=PerSample(), strength=strength)
        first, start = fisher_trace(case.model, case.losses, *case.batch)
        for _ in range(20):
            optimizer.step(case.losses, *case.batch)
        if hasattr(optimizer.base, "eval"):
            optimizer.base.eval()
        losses, trace = fisher_trace(case.model, case.losses, *case.batch)
        assert losses.detach().mean() < 0.9 * first.detach().mean()
        traces.append(float(trace.detach() / start.detach()))
    alone, ours = traces
    assert ours < 0.7 and ours < 0.9 * alone


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adamw", "muon", "soap", "sgd_free", "adamw_free"]
)
def test_every_base_resumes_bit_for_bit(name):
    row = BASES[name]
    case, other = network(row), network(row, seed=1)
    optimizer, resumed = row.wrapped(case.model), row.wrapped(other.model)
    for batch in batches(3):
        optimizer.step(case.losses, *batch)
    file = io.BytesIO()
    torch.save([case.model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    model, state = torch.load(file, weights_only=True)
    other.model.load_state_dict(model)
    resumed.load_state_dict(state)
    for batch in batches(6)[3:]:
        optimizer.step(case.losses, *batch)
        resumed.step(other.losses, *batch)
    assert torch.equal(weights(other.model), weights(case.model))
    assert bits(resumed.base.state_dict()) == bits(optimizer.base.state_dict())


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize("name", ["sgd_free", "adamw_free"])
def test_the_modes_of_a_schedule_free_base_are_reached_by_base(name):
    """eval() puts the average in, train() takes it out again, and between them no step is taken."""
    row = BASES[name]
    case = network(row)
    optimizer = row.wrapped(case.model)
    for batch in batches(5):
        optimizer.step(case.losses, *batch)
    trained = weights(case.model)
    optimizer.base.eval()
    average = weights(case.model)
    assert relative(average, trained) > 1e-3
    with pytest.raises(Exception, match="not in train mode"):
        optimizer.step(case.losses, *case.batch)
    assert torch.equal(weights(case.model), average)
    optimizer.base.train()
    assert relative(weights(case.model), trained) < 1e-12
    optimizer.step(case.losses, *case.batch)


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize("name", [*PRECONDITIONED, "momentum", "muon", "adadelta"])
def test_a_known_metric_keeps_the_structure_term_out_of_the_state_of_the_base(name):
    """All moments are those of a plain run on the same loss gradients; without one they are not."""
    row = BASES[name]
    case = network(row)
    optimizer = row.wrapped(case.model, strength=Ratio(0.5))
    alone = copy.deepcopy(case.model)
    plain = row.plain(alone.parameters())
    for batch in batches(4):
        alone.load_state_dict(case.model.state_dict())
        for p, g in zip(alone.parameters(), gradient(alone, batch), strict=True):
            p.grad = g
        plain.step()
        optimizer.step(case.losses, *batch)
    ours, theirs = (flat(moments(o)) for o in (optimizer.base, plain))
    assert (relative(ours, theirs) < 1e-12) == (name in PRECONDITIONED)


def moments(optimizer):
    state = optimizer.state_dict()["state"].values()
    return [v for s in state for n, v in s.items() if isinstance(v, torch.Tensor) and v.ndim]


@pytest.mark.parametrize("after", [0, 1, 8])
@pytest.mark.parametrize("name", PRECONDITIONED)
def test_the_structure_term_is_applied_in_the_metric_of_the_base(name, after):
    """θ − θ_base = −lr D λh⊥, ⟨g, D h⊥⟩ = 0, ‖λh⊥‖_D = κ‖g‖_D; h from the dense truth."""
    row, kappa = BASES[name], 0.4
    case = network(row)
    estimator = PerSample(FiniteDifference(), power=2)
    optimizer = row.wrapped(case.model, estimator=estimator, strength=Ratio(kappa))
    for batch in batches(after):
        optimizer.step(case.losses, *batch)

    batch = case.batch
    alone = copy.deepcopy(case.model)
    plain = row.plain(alone.parameters())
    plain.load_state_dict(copy.deepcopy(optimizer.base.state_dict()))
    g, h = gradient(alone, batch), truth(case.model, case.losses, *batch).structure
    for p, value in zip(alone.parameters(), g, strict=True):
        p.grad = value
    plain.step()
    optimizer.step(case.losses, *batch)

    part = weights(case.model) - weights(alone)
    g, diagonal = flat(g), flat(metric(plain, list(alone.parameters())))
    lr = optimizer.param_groups[0]["lr"]
    assert abs(g @ part) < 1e-6 * g.norm() * part.norm()
    across = h - (h @ (diagonal * g)) / (g @ (diagonal * g)) * g
    length = ((diagonal * g) @ g).sqrt() / ((diagonal * across) @ across).sqrt()
    assert relative(part, -lr * diagonal * kappa * length * across) < 1e-6


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "factory", "sgd_free"])
def test_with_sgd_the_structure_term_joins_the_gradient(name):
    """.grad = g + λh⊥ with ‖λh⊥‖ = κ‖g‖, and so momentum carries it on."""
    row = BASES[name]
    case, alone = network(row), network(row)
    optimizer = row.wrapped(
        case.model, strength=Ratio(0.4), estimator=PerSample(DoubleBackward(), power=2)
    )
    plain = row.plain(alone.model.parameters())
    for batch in batches(3):
        g = flat(gradient(case.model, batch))
        h = truth(case.model, case.losses, *batch).structure
        optimizer.step(case.losses, *batch)
        total = flat(p.grad for p in case.model.parameters())
        across = h - (h @ g) / (g @ g) * g
        expected = g + 0.4 * g.norm() / across.norm() * across
        assert relative(total, expected) < 1e-9
        for p, q in zip(alone.model.parameters(), case.model.parameters(), strict=True):
            p.grad = q.grad.clone()
        plain.step()
        assert relative(weights(case.model), weights(alone.model)) < 1e-14


@pytest.mark.parametrize("name", ["muon", "adadelta", "rprop", "asgd", "soap"])
def test_a_base_without_known_metric_is_warned_about_and_projected_as_euclidean(name):
    row = BASES[name]
    case = network(row)
    with pytest.warns(UserWarning, match=r"no metric of \w+.*register_metric"):
        optimizer = row.wrapped(case.model, strength=Ratio(0.3))
    g = flat(gradient(case.model, case.batch))
    optimizer.step(case.losses, *case.batch)
    part = flat(p.grad for p in case.model.parameters()) - g
    assert abs(g @ part) < 1e-12 * g.norm() * part.norm()
    assert part.norm() == pytest.approx(0.3 * float(g.norm()), rel=1e-9)


@pytest.mark.parametrize("name", ["muon", "adadelta"])
@pytest.mark.parametrize(
    "options", [{"strength": Ratio(0)}, {"rule": Direct(), "strength": Fixed(2)}]
)
def test_no_warning_where_the_metric_does_not_matter(name, options):
    BASES[name].wrapped(network(BASES[name]).model, **options)
