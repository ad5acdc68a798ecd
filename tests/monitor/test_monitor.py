"""A monitor reports when it should, and leaves the run as it was to the bit."""

import linecache
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW

from cases import WHOLE, case
from f3eo import F3EO, Fixed, Sensitivity, Warmup
from f3eo.closure.snapshot import Snapshot
from f3eo.instruments import effective_dimension
from f3eo.monitor import QUANTITIES, Monitor
from f3eo.second_order import GaussNewton
from optimizer.helpers import batches, bits, everything, network


class Noisy(nn.Module):
    """Dropout, numbers from Python and numpy, a buffer that counts; BatchNorm in either mode."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.norm = nn.BatchNorm1d(8) if batch_norm else nn.GroupNorm(2, 8)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        x = x + 0.01 * random.random() + 0.01 * np.random.rand()
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def losses_of(model):
    return lambda x, y: cross_entropy(model(x), y, reduction="none")


def plain_run(base, watched, *, batch_norm=False, frozen=False, between=False):
    """Bits of all that seven steps leave, and what was reported."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model = Noisy(batch_norm).double()
    model.first.requires_grad_(not frozen)
    optimizer = base([p for p in model.parameters() if p.requires_grad], lr=0.1)
    closure, reports = losses_of(model), []
    monitor = watched and Monitor(
        optimizer,
        model=model,
        closure=closure,
        every=2,
        samples=4,
        sinks=[lambda step, scalars: reports.append((step, scalars))],
    )
    for batch in batches(7):
        optimizer.zero_grad()
        closure(*batch).mean().backward()
        if monitor and between:
            monitor.step(*batch)
        optimizer.step()
        if monitor and not between:
            monitor.step(*batch)
    state = {
        "model": bits(model.state_dict()),
        "grads": [bits(p.grad) for p in model.parameters()],
        "optimizer": bits(optimizer.state_dict()),
        "random": (bits(torch.get_rng_state()), random.random(), float(np.random.rand())),
        "mode": [m.training for m in model.modules()],
    }
    return state, reports


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("base", [SGD, AdamW])
def test_beside_a_plain_optimizer_the_run_is_the_same_to_the_bit(base, frozen, between):
    alone, _ = plain_run(base, False, frozen=frozen)
    watched, reports = plain_run(base, True, frozen=frozen, between=between)
    assert watched == alone
    assert [step for step, _ in reports] == [0, 2, 4, 6]
    layers = {k for k in reports[0][1] if k.startswith("f3eo/trace/")}
    assert ("f3eo/trace/first" in layers) != frozen and "f3eo/trace/last" in layers


def test_where_a_batch_norm_mixes_samples_loss_and_gradient_norm_are_left():
    alone, _ = plain_run(SGD, False, batch_norm=True)
    with pytest.warns(UserWarning, match="norm normalise.*GroupNorm") as caught:
        watched, reports = plain_run(SGD, True, batch_norm=True)
    assert watched == alone and len(caught) == 1
    line = linecache.getline(caught[0].filename, caught[0].lineno)
    assert "monitor.step(*batch)" in line
    assert all(s.keys() == {"f3eo/loss", "f3eo/gradient_norm"} for _, s in reports)


def test_beside_f3eo_the_run_is_the_same_to_the_bit():
    found, reports = [], []
    for watched in (False, True):
        torch.manual_seed(1)
        model = Noisy(False).double()
        optimizer = F3EO(model, AdamW, lr=0.05, every=2)
        if watched:
            Monitor(optimizer, every=2, sinks=[lambda step, scalars: reports.append(step)])
        np.random.seed(1)
        random.seed(1)
        for batch in batches(7):
            optimizer.step(losses_of(model), *batch)
        found.append(everything(model, optimizer))
    assert found[0] == found[1] and reports == [0, 2, 4, 6]


def reported(optimizer, row, steps, **options):
    found = []
    monitor = Monitor(optimizer, sinks=[lambda step, scalars: found.append(step)], **options)
    for _ in range(steps):
        optimizer.step(row.losses, *row.batch)
    return found, monitor


@pytest.mark.parametrize(
    ("measured", "every", "steps"),
    [
        (5, 1, [0, 5, 10, 15]),
        (5, 5, [0, 5, 10, 15]),
        (5, 7, [0, 10, 15]),
        (1, 7, [0, 7, 14]),
        (3, 50, [0]),
    ],
)
def test_a_report_waits_for_a_step_that_measures_h(measured, every, steps):
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.01, every=measured, strength=Sensitivity(rest=0))
    assert reported(optimizer, row, 20, every=every)[0] == steps


def test_a_report_does_not_wait_for_ever():
    """A strength of 0 measures nothing, and a warm-up nothing at first."""
    row = network()
    never = F3EO(row.model, SGD, lr=0.01, strength=Fixed(0.0), every=5)
    assert reported(never, row, 20, every=10)[0] == [4, 14]
    asleep = F3EO(row.model, SGD, lr=0.01, strength=Sensitivity(0.0), every=5)
    assert reported(asleep, row, 20, every=10)[0] == [4, 14]
    late = F3EO(row.model, SGD, lr=0.01, strength=Fixed(0.1, Warmup(3)), every=1)
    assert reported(late, row, 4, every=2)[0] == [0, 2]


def test_an_optimizer_that_goes_back_is_reported_on():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.01, every=1, strength=Sensitivity(rest=0))
    saved = optimizer.state_dict()
    found, _ = reported(optimizer, row, 30, every=10)
    optimizer.load_state_dict(saved)
    for _ in range(12):
        optimizer.step(row.losses, *row.batch)
    assert found == [0, 10, 20, 0, 10]


@pytest.mark.parametrize("name", [*QUANTITIES, "noise_scale"])
def test_a_quantity_is_reported_alone(name):
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.01, **WHOLE)
    _, monitor = reported(optimizer, row, 1, quantities=[name])
    names = {key.removeprefix("f3eo/") for key in monitor.last}
    other = {"trace_by_layer": {"trace/0", "trace/2", "trace/4"}, "memorisation": None}
    other["structure_norm"] = {"structure_norm", "direction_norm"}
    expected = {"memorisation/top_tenth"} if name == "memorisation" else other.get(name, {name})
    assert names == expected


def test_every_sink_has_scalars_of_its_own():
    row, found = network(), []

    def spoil(step, scalars):
        scalars.clear()

    optimizer = F3EO(row.model, SGD, lr=0.01)
    monitor = Monitor(optimizer, sinks=[spoil, lambda step, scalars: found.append(scalars)])
    optimizer.step(row.losses, *row.batch)
    assert found == [monitor.last] and found[0]
    assert all(type(value) is float for value in monitor.last.values())


def test_what_a_sink_raises_ends_the_run():
    def fail(step, scalars):
        raise OSError("full")

    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.01)
    Monitor(optimizer, sinks=[fail])
    with pytest.raises(OSError, match="full"):
        optimizer.step(row.losses, *row.batch)


def test_an_optimizer_of_second_order_is_watched_as_a_plain_one():
    c = case("regression")
    optimizer = GaussNewton(c.model)
    monitor = Monitor(optimizer, model=c.model, closure=c.drawn)
    optimizer.step(c.drawn, *c.batch)
    monitor.step(*c.batch)
    assert monitor.last["f3eo/trace"] > 0


def test_at_most_so_many_samples_are_measured_and_drawn_anew_each_time():
    c = case("mlp")
    seen = []

    def closure(x, y):
        seen.append(x.clone())
        return c.losses(x, y)

    monitor = Monitor(SGD(c.model.parameters()), model=c.model, closure=closure, every=1, samples=2)
    for _ in range(8):
        monitor.step(*c.batch)
    assert {len(x) for x in seen} == {2}
    assert len({tuple(x.flatten().tolist()) for x in seen}) > 3


# State.


@pytest.mark.parametrize("beside", ["f3eo", "plain"])
def test_a_monitor_continues_from_its_state(beside):
    found = []
    for resumed in (False, True):
        c = case("mlp")
        plain = {"model": c.model, "closure": c.losses, "samples": 3}
        make = {
            "f3eo": lambda c=c: F3EO(c.model, SGD, lr=0.1, **WHOLE),
            "plain": lambda c=c: SGD(c.model.parameters(), lr=0.1),
        }[beside]
        options = {"every": 2, **(plain if beside == "plain" else {})}
        optimizer = make()
        monitor = Monitor(optimizer, **options)
        for k in range(9):
            if resumed and k == 5:
                state, own = optimizer.state_dict(), monitor.state_dict()
                optimizer = make()
                monitor = Monitor(optimizer, **options)
                optimizer.load_state_dict(state)
                monitor.load_state_dict(own)
            if beside == "f3eo":
                optimizer.step(c.losses, *c.batch)
            else:
                c.losses(*c.batch).mean().backward()
                optimizer.step()
                monitor.step(*c.batch)
        found.append(monitor.last)
    assert found[0] == found[1] and found[0]


def test_a_state_of_something_else_is_refused():
    monitor = Monitor(F3EO(network().model, SGD, lr=0.1))
    with pytest.raises(ValueError, match=r"not a state dict of a Monitor.*param_groups"):
        monitor.load_state_dict(SGD(network().model.parameters()).state_dict())


def test_the_state_can_be_saved(tmp_path):
    monitor = Monitor(F3EO(network().model, SGD, lr=0.1))
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    monitor.load_state_dict(torch.load(tmp_path / "state.pt"))


# The end.


class Closing:
    def __init__(self):
        self.closed = 0

    def __call__(self, step, scalars):
        pass

    def close(self):
        self.closed += 1


def test_the_end_closes_sinks_once_and_f3eo_goes_on_alone():
    row, sink = network(), Closing()
    optimizer = F3EO(row.model, SGD, lr=0.01, **WHOLE)
    with Monitor(optimizer, every=1, sinks=[sink, print]) as monitor:
        optimizer.step(row.losses, *row.batch)
    monitor.close()
    last = monitor.last
    optimizer.step(row.losses, *row.batch)
    assert sink.closed == 1 and monitor.closed and monitor.last is last


def test_a_run_that_fails_closes_the_sinks():
    sink = Closing()
    with pytest.raises(KeyError), Monitor(F3EO(network().model, SGD, lr=0.1), sinks=[sink]):
        raise KeyError
    assert sink.closed == 1


def beside_sgd(**options):
    c = case("mlp")
    return Monitor(SGD(c.model.parameters()), **{"model": c.model, "closure": c.losses} | options)


def beside_f3eo(**options):
    return Monitor(F3EO(network().model, SGD, lr=0.1), **options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: beside_f3eo(every=0), ValueError, "every must be > 0, received 0"),
        (lambda: beside_f3eo(every=1.5), TypeError, "every must be an integer, received 1.5"),
        (
            lambda: beside_f3eo(quantities=["los"]),
            ValueError,
            r"\['los'\]; choose from loss, .*nois",
        ),
        (lambda: beside_f3eo(quantities="loss"), TypeError, "'loss': use a list"),
        (lambda: beside_f3eo(sinks=["a.jsonl"]), TypeError, r"'a.jsonl'; a file is JsonLines"),
        (lambda: beside_f3eo(samples=3), TypeError, "leave out samples"),
        (lambda: beside_f3eo(closure=len, model=nn.Linear(1, 1)), TypeError, "out model, closure"),
        (lambda: beside_f3eo().step(), RuntimeError, "every step is observed: remove"),
        (lambda: beside_sgd(model=None), TypeError, "beside SGD .*model=module.*NoneType"),
        (lambda: beside_sgd(closure=3), TypeError, "closure=3"),
        (lambda: beside_sgd(samples=0), ValueError, "samples must be > 0, received 0"),
        (lambda: beside_sgd(generator=3), TypeError, "generator must be a torch.Generator"),
        (lambda: beside_sgd(metric=3), TypeError, "needs a metric"),
        (lambda: beside_sgd().step(*case("cnn").batch[1:]), TypeError, "argument"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_batch_or_model_without_anything_is_refused_and_nothing_is_left_changed():
    c = case("mlp")
    monitor = Monitor(SGD(c.model.parameters()), model=c.model, closure=c.losses, every=1)
    with pytest.raises(ValueError, match="no samples: leave it out"):
        monitor.step(*(t[:0] for t in c.batch))
    c.model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to watch"):
        monitor.step(*c.batch)
    monitor.close()
    with pytest.raises(RuntimeError, match="closed: make a new one"):
        monitor.step(*c.batch)


def test_a_measurement_that_fails_restores_the_surroundings(monkeypatch):
    restored = []
    monkeypatch.setattr(Snapshot, "restore", lambda self: restored.append(True))
    monitor = beside_sgd(closure=lambda x, y: torch.zeros(()))
    with pytest.raises(ValueError, match="scalar loss, per-sample losses are needed"):
        monitor.step(*case("mlp").batch)
    assert restored


def test_probes_are_called_at_reports_and_do_not_change_the_run():
    def run(probed):
        torch.manual_seed(3)
        c = case("mlp")
        optimizer, seen = F3EO(c.model, SGD, lr=0.1, **WHOLE), []
        probes = {"dimension": lambda: effective_dimension(c.model, c.losses, [c.batch], 0.1).value}
        with Monitor(
            optimizer,
            every=2,
            probes=probes if probed else {},
            sinks=[lambda step, scalars: seen.append((step, scalars))],
        ):
            for _ in range(4):
                optimizer.step(c.losses, *c.batch)
        expected = probes["dimension"]()
        return [p.detach().clone() for p in c.model.parameters()], seen, expected

    plain, watched = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], watched[0], strict=True))
    assert [step for step, _ in watched[1]] == [0, 2]
    values = [scalars["f3eo/dimension"] for _, scalars in watched[1]]
    assert len(set(values)) == 2 and "f3eo/dimension" not in plain[1][0][1]
    c = case("mlp")
    optimizer = F3EO(c.model, SGD, lr=0.1, **WHOLE)
    monitor = Monitor(optimizer, probes={"a": lambda: 2})
    optimizer.step(c.losses, *c.batch)
    assert monitor.last["f3eo/a"] == 2.0


def test_bad_probes_are_refused():
    c = case("mlp")
    optimizer = F3EO(c.model, SGD, lr=0.1)
    with pytest.raises(
        TypeError, match=r"a probe is a function without arguments, received a=1\.0"
    ):
        Monitor(optimizer, probes={"a": 1.0})
    with pytest.raises(ValueError, match="'trace' is a quantity of the monitor"):
        Monitor(optimizer, probes={"trace": lambda: 1.0})
