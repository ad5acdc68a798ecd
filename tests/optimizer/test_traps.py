"""The traps of second derivatives in PyTorch: each is correct here, or refused with its cure.

BatchNorm, dropout and failing closures: test_restore.py; clipping: test_strength.py.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim import SGD, Adam
from torch.utils.checkpoint import checkpoint

from cases import case
from dense import relative, truth
from exact import ENGINES
from f3eo import F3EO, Categorical, DoubleBackward, FiniteDifference, MiniBatch, PerSample
from f3eo.extend import Direct
from optimizer.helpers import (
    DIFFERENCES,
    ESTIMATORS,
    batches,
    bits,
    grads,
    losses,
    network,
    plain,
    stepped,
    weights,
)

# Wrappers.


def wrapper(name):
    kind = type(name, (nn.Module,), {"forward": lambda self, x: self.module(x)})
    outer = kind()
    outer.module = network().model
    return outer


@pytest.mark.parametrize(
    ("name", "cure"),
    [("FullyShardedDataParallel", r"model\.module"), ("FSDPModule", r"estimator=Sharded\(\)")],
)
@pytest.mark.parametrize("inside", [False, True])
def test_wrappers_that_spread_parameters_are_refused(name, cure, inside):
    model = nn.Sequential(wrapper(name)) if inside else wrapper(name)
    with pytest.raises(NotImplementedError, match=cure):
        F3EO(model, SGD, lr=0.1, fraction=1, every=1)


def compiled(model):
    return torch.compile(model, backend="eager")


COMPILED = {
    "wrapped": compiled,
    "in place": lambda model: model.compile(backend="eager") or model,
    "a part": lambda model: nn.Sequential(compiled(model[:2]), *model[2:]),
}


@pytest.mark.filterwarnings("ignore:.*(deprecated|Deprecated).*")
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("way", COMPILED)
def test_compiled_models_are_trained_as_they_are_written(way, name):
    found = []
    for make in (lambda model: model, COMPILED[way]):
        inner = network().model
        model = make(inner)
        stepped(model, plain, batches(1)[0], ESTIMATORS[name](), lr=0.1)
        found.append(weights(inner))
    assert relative(*found) < 1e-9


class Counted:
    """A backend that counts graphs and their runs."""

    def __init__(self):
        self.graphs, self.runs = 0, 0

    def __call__(self, graph, inputs):
        self.graphs += 1

        def run(*args):
            self.runs += 1
            return graph(*args)

        return run


class Own(nn.Sequential):
    """Torch compiles modules in place whose code is not its own."""

    def forward(self, x):
        return super().forward(x)


RUN_BY = {
    "wrapped": lambda model, backend: torch.compile(model, backend=backend),
    "in place": lambda model, backend: model.compile(backend=backend) or model,
}


@pytest.mark.filterwarnings("ignore:.*(deprecated|Deprecated).*")
@pytest.mark.parametrize("way", RUN_BY)
def test_plain_gradients_run_compiled_and_measurements_as_it_is_written(way):
    torch._dynamo.reset()
    backend, rows = Counted(), batches(11)
    model = RUN_BY[way](Own(*network().model), backend)
    optimizer = F3EO(model, SGD, lr=0.1)
    runs = []
    for batch in rows:
        before = backend.runs
        optimizer.step(lambda x, y: F.cross_entropy(model(x), y, reduction="none"), *batch)
        runs.append(backend.runs - before)
    # One a step; at steps 0, 5 and 10 of the samples whose h is not measured.
    assert runs == [1] * 11
    assert backend.graphs == 2  # one for both numbers of samples after the first
    assert weights(model).isfinite().all()


def test_grad_scaler_is_refused_with_the_way_out():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, fraction=1, every=1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    before = weights(row.model)
    with pytest.raises(
        RuntimeError, match=r"step\(closure, \*batch\).*GradScaler\(enabled=False\)"
    ):
        scaler.step(optimizer, row.losses, *row.batch)
    assert torch.equal(before, weights(row.model)) and optimizer.steps == 0


def test_a_disabled_grad_scaler_hands_the_step_on():
    row, other = network(), network()
    loss = torch.amp.GradScaler("cpu", enabled=False).step(
        F3EO(row.model, SGD, lr=0.1, fraction=1, every=1), row.losses, *row.batch
    )
    assert loss == F3EO(other.model, SGD, lr=0.1, fraction=1, every=1).step(
        other.losses, *other.batch
    )
    assert torch.equal(weights(row.model), weights(other.model))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_bfloat16_autocast_needs_no_scaler(name):
    """Differences choose their step by the precision of the forward pass, not of the weights."""
    found = []
    for enabled in (False, True):
        model = network().model.float()

        def forward(model, x, enabled=enabled):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                return model(x)

        batch = batches(1, 32, torch.float32)[0]
        optimizer = stepped(model, forward, batch, ESTIMATORS[name](), rule=Direct())
        assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
        found.append((grads(model), float(optimizer.trace)))  # h, and the trace
    assert relative(found[1][0], found[0][0]) < (0.15 if name in DIFFERENCES else 0.05)
    assert found[1][1] == pytest.approx(found[0][1], rel=0.05)


# Where curvature is zero or no graph exists.


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "model"])
def test_a_loss_linear_in_the_weights_has_no_structure_term(name):
    """Max-pooling and ReLU leave none either: the step is that of the base."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.MaxPool1d(2)).double()
    other = copy.deepcopy(model)
    optimizer = F3EO(model, SGD, lr=0.01, estimator=ESTIMATORS[name](), fraction=1, every=1)
    alone = SGD(other.parameters(), lr=0.01)
    for x, _ in batches(3):
        alone.zero_grad()
        other(x).sum(1).mean().backward()
        alone.step()
        optimizer.step(lambda x: model(x).sum(1), x)
    assert relative(weights(model), weights(other)) < (1e-6 if name in DIFFERENCES else 1e-12)
    assert optimizer.trace > 0 and optimizer.skipped == 0


# Modules whose samples' gradients are easily got wrong.


@pytest.mark.parametrize(("engine", "tolerance"), ENGINES)
@pytest.mark.parametrize("name", ["cnn", "tied", "sequence_first", "no_rules", "attention"])
def test_in_place_tied_repeated_and_unknown_layers(name, engine, tolerance):
    """In-place ReLU, one weight used twice, a module called twice, layers without a rule."""
    row = case(name)
    expected = truth(row.model, row.losses, *row.batch)
    optimizer = stepped(row.model, plain, row.batch, PerSample(engine, power=2))
    assert relative(grads(row.model), expected.gradient + expected.structure) < tolerance
    assert float(optimizer.trace) == pytest.approx(float(expected.trace), rel=1e-10)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_activation_checkpointing_matches_if_not_reentrant(name):
    found = []
    for forward in (plain, lambda m, x: m[2:](checkpoint(m[:2], x, use_reentrant=False))):
        model = network().model
        optimizer = stepped(model, forward, batches(1)[0], ESTIMATORS[name]())
        found.append(torch.cat([grads(model), optimizer.trace[None]]))
    # Per-sample differences give way to double backward under a checkpoint.
    assert relative(*found) < (1e-5 if name == "exact, differences" else 1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_reentrant_checkpointing_is_refused_with_the_cure(name):
    model = network().model
    before = weights(model)

    def forward(m, x):
        return m[2:](checkpoint(m[1:2], m[0](x), use_reentrant=True))

    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        stepped(model, forward, batches(1)[0], ESTIMATORS[name](), lr=0.1)
    assert torch.equal(before, weights(model))


def test_reentrant_checkpointing_of_everything_that_is_trained_is_refused_with_the_cure():
    """Nothing of it is seen then, as in adapters between frozen layers."""
    model = network().model

    def forward(m, x):
        return checkpoint(m, x.detach().requires_grad_(), use_reentrant=True)

    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        stepped(model, forward, batches(1)[0], PerSample())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fused_attention_is_recomputed_as_it_was_computed(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))

    def block(m, x):
        q = m[1](m[0](x)).view(-1, 2, 4, 2)
        return m[2](F.scaled_dot_product_attention(q, q, q).flatten(1))

    found = []
    for forward in (block, lambda m, x: checkpoint(block, m, x, use_reentrant=False)):
        twin = copy.deepcopy(model).double()
        batch = torch.linspace(-1, 1, 24).double().view(6, 4), torch.arange(6) % 3
        optimizer = stepped(twin, forward, batch, ESTIMATORS[name]())
        found.append(torch.cat([grads(twin), optimizer.trace[None]]))
    assert relative(*found) < (1e-5 if "differences" in name else 1e-12)


class Tokens(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.head = nn.Embedding(7, 6, **options), nn.Linear(6, 3)

    def forward(self, index):
        return self.head(self.table(index).mean(1))


TOKENS = (torch.arange(20).view(5, 4) % 7, torch.tensor([0, 1, 2, 0, 1]))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_sparse_gradients_are_refused_even_where_the_module_is_not_known(name):
    model = Tokens(sparse=True)
    optimizer = F3EO(
        list(model.parameters()), SGD, lr=0.1, estimator=ESTIMATORS[name](), fraction=1, every=1
    )
    with pytest.raises(ValueError, match="sparse"):
        optimizer.step(lambda x, y: Categorical(model(x), y), *TOKENS)


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n not in DIFFERENCES])
def test_an_embedding_that_renorms_its_rows_in_the_forward_pass(name):
    """It writes into the weights themselves, before they are used."""
    torch.manual_seed(0)
    model = Tokens(max_norm=1.0).double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other(TOKENS[0])
    other.table.max_norm = None
    for m in (model, other):
        stepped(m, plain, TOKENS, ESTIMATORS[name](), lr=0.1)
    assert relative(weights(model), weights(other)) < 1e-12
    assert model.table.weight.norm(dim=1).max() < 1.1


# Memory and graphs of the user.


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_a_step_writes_carries_no_graph_even_if_the_user_keeps_one(name):
    row = network()
    kept = []

    def closure(x, y):
        likelihood = Categorical(row.model(x), y)
        if torch.is_grad_enabled():
            kept.append(likelihood.losses())
        return likelihood

    optimizer = F3EO(row.model, Adam, lr=0.1, estimator=ESTIMATORS[name](), every=2, fraction=1)
    written = [optimizer.step(closure, *batch) for batch in batches(3)]
    own = [t for s in optimizer.state.values() for t in s["f3eo"].values()]
    written += [t for t in own if isinstance(t, torch.Tensor)]
    written += [t for s in optimizer.base.state.values() for t in s.values()]
    written += [p.grad for p in row.model.parameters()] + [optimizer.trace]
    assert not any(t.requires_grad for t in written)
    assert all(p.is_leaf for p in row.model.parameters())
    assert all(losses.requires_grad for losses in kept)


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
def test_what_is_remembered_of_a_reparametrised_model_does_not_grow(norm):
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Linear(5, 7)), nn.Tanh(), nn.Linear(7, 3)).double()
    estimator = PerSample(DoubleBackward(), power=2)
    optimizer = F3EO(model, SGD, lr=0.01, estimator=estimator, fraction=1, every=1)
    for batch in batches(12):
        optimizer.step(losses(model), *batch)
    assert len(estimator._known) == 1


@pytest.mark.parametrize("central", [False, True])
def test_differences_in_float32_are_as_exact_as_promised(central):
    """Relative error of H g: 1e-3 forward, 1e-4 central, against double backward in float64."""
    found = []
    for dtype, engine in (
        (torch.float64, DoubleBackward()),
        (torch.float32, FiniteDifference(central=central)),
    ):
        x, y = batches(1, 16)[0]
        model, batch = network().model.to(dtype), (x.to(dtype), y)
        stepped(model, plain, batch, MiniBatch(engine), rule=Direct())
        found.append(grads(model))
    assert relative(found[1], found[0]) < (2e-4 if central else 2e-3)


def test_a_step_does_not_write_into_the_batch():
    row = network()
    before = bits(list(row.batch))
    F3EO(row.model, SGD, lr=0.1, fraction=0.5, chunk=4, every=1).step(row.losses, *row.batch)
    assert bits(list(row.batch)) == before
