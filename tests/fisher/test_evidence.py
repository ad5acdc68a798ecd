"""Where samples are is found by gradients that are not zero, and looked at again.

The truth is the loop over single samples in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dense import flat, relative, truth
from f3eo import F3EO, DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem
from f3eo.fisher.watch import Watch
from f3eo.tensors import filled

ENGINES = [FiniteDifference(), DoubleBackward()]


def closure_of(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def check(model, closure, batch, estimator, tolerance=1e-5):
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = truth(parameters, closure, *batch, power=1)
    problem = Problem(closure, batch, parameters, [True] * len(parameters), model)
    found = estimator.gradients(problem)
    assert relative(found.trace, expected.trace) < 1e-9
    assert relative(flat(filled(found.gradient, parameters)), expected.gradient) < 1e-9
    assert relative(flat(found.structure), expected.structure) < tolerance


class TimeMajor(nn.Module):
    """Rows folded with time outside, so that the samples lie inside of B·T."""

    def __init__(self, zero=False, lora=False):
        super().__init__()
        self.into, self.middle, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
        if lora:
            for layer in (self.into, self.middle, self.head):
                layer.requires_grad_(False)
        if zero:
            nn.init.zeros_(self.up.weight if lora else self.head.weight)
            if not lora:
                nn.init.zeros_(self.head.bias)

    def forward(self, x):
        count, time, _ = x.shape
        z = self.into(x).tanh().transpose(0, 1).reshape(time * count, -1)
        z = (self.middle(z) + self.up(self.down(z))).tanh()
        return self.head(z.view(time, count, -1).mean(0))


@pytest.mark.filterwarnings("ignore:2 labels are ignored")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["zero head", "LoRA", "ignored ends"])
def test_no_gradient_is_no_evidence(kind, engine):
    torch.manual_seed(0)
    model = TimeMajor(zero=kind != "ignored ends", lora=kind == "LoRA").double()
    estimator = PerSample(engine)
    optimizer = F3EO(model, torch.optim.SGD, lr=0.5, estimator=estimator, fraction=1, every=1)
    closure = closure_of(model)
    for step in range(3):
        x, y = torch.randn(5, 7, 3, dtype=torch.float64), torch.randint(3, (5,))
        if kind == "ignored ends" and step == 0:
            y[0] = y[-1] = -100
        check(model, closure, (x, y), estimator)
        optimizer.step(closure, x, y)


def test_a_layer_that_was_dead_at_first_is_asked_when_it_lives():
    """Its operations mix the samples; without a gradient nobody can tell."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)]).double()
    gate = 0.0

    def closure(x, y):
        z = model[0](x)
        mixed = model[1](z - gate * z.mean(0))
        return F.cross_entropy(model[2](z + gate * mixed), y, reduction="none")

    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randint(3, (6,))
    estimator = PerSample()
    parameters = list(model.parameters())
    problem = Problem(closure, (x, y), parameters, [True] * len(parameters), model)
    for _ in range(2):
        estimator.gradients(problem)
    gate = 1.0
    with pytest.raises(ValueError, match="mixes the 6 samples"):
        estimator.gradients(problem)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_mixing_from_a_later_batch_on_is_seen_at_once(share):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 8), nn.Linear(8, 3)]).double()
    on = False

    def closure(x, y):
        z = model[0](x).tanh()
        z = z + share * z.roll(1, 0) if on else z
        return F.cross_entropy(model[1](z), y, reduction="none")

    batch = torch.randn(16, 3, dtype=torch.float64), torch.randint(3, (16,))
    estimator, parameters = PerSample(), list(model.parameters())
    problem = Problem(closure, batch, parameters, [True] * len(parameters), model)
    for _ in range(2):
        estimator.gradients(problem)
    on = True
    with pytest.raises(ValueError, match="mixes the 16 samples"):
        estimator.gradients(problem)


class OwnNorm(nn.Module):
    """Batch statistics in training, of the user's own making."""

    def forward(self, x):
        return (x - x.mean(0)) / x.std(0) if self.training else x


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_of_mode_is_checked(engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), OwnNorm(), nn.Linear(8, 3)).double().eval()
    batch = torch.randn(16, 3, dtype=torch.float64), torch.randint(3, (16,))
    parameters = list(model.parameters())
    problem = Problem(closure_of(model), batch, parameters, [True] * len(parameters), model)
    estimator = PerSample(engine)
    for _ in range(2):
        estimator.gradients(problem)
    model.train()
    with pytest.raises(ValueError, match="mixes the 16 samples"):
        estimator.gradients(problem)


def test_when_checks_are_due():
    model = nn.Linear(2, 2)
    problems = {
        n: Problem(lambda: None, (torch.zeros(n, 2),), list(model.parameters()), [True], model)
        for n in range(1, 9)
    }
    watch = Watch()
    assert [i + 1 for i in range(70) if watch.due(problems[8])] == [1, 4, 16, 64]
    model.eval()
    assert watch.due(problems[8]) and not watch.due(problems[8])
    model.register_forward_hook(lambda *call: None)
    assert watch.due(problems[8]) and not watch.due(problems[8])
    # The 2nd, 4th and 8th kind of shapes.
    assert [n for n in range(1, 8) if watch.due(problems[n])] == [1, 3, 7]
    assert not any(watch.due(problems[n]) for n in problems)


def test_a_loaded_state_is_checked_again():
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    optimizer = F3EO(model, torch.optim.SGD, lr=0.1, fraction=1, every=1)
    x, y = torch.randn(4, 3), torch.randint(3, (4,))
    for _ in range(2):
        optimizer.step(closure_of(model), x, y)
    known = optimizer.estimator._known
    assert known
    optimizer.load_state_dict(optimizer.state_dict())
    assert not optimizer.estimator._known and optimizer.estimator._watch.measured == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_packed_sequence_is_a_permutation(kind, engine):
    """Sorted in the first batch and in others not; the layer is used twice."""
    torch.manual_seed(0)
    embed, layer = nn.Embedding(20, 4), getattr(nn, kind)(4, 4, batch_first=True)
    model = nn.ModuleList([embed, layer, nn.Linear(4, 3)]).double()

    def closure(x, n, y):
        z = embed(x)
        for _ in range(2):
            packed = pack_padded_sequence(z, n, batch_first=True, enforce_sorted=False)
            z = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]
        last = z[torch.arange(len(x)), n - 1]
        return F.cross_entropy(model[2](last), y, reduction="none")

    estimator = PerSample(engine)
    for lengths in ([6, 5, 3, 2], [3, 6, 2, 5], [2, 3, 5, 6], [6, 2, 5, 3]):
        batch = torch.randint(20, (4, 6)), torch.tensor(lengths), torch.randint(3, (4,))
        check(model, closure, batch, estimator)


@pytest.mark.parametrize("engine", ENGINES)
def test_samples_indexed_by_a_permutation_are_followed(engine):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 3)]).double()

    def closure(x, y):
        order = y.argsort(stable=True) if len(y) > 1 else torch.zeros(1, dtype=torch.int64)
        z = model[1](model[0](x).tanh()[order]).tanh()
        return F.cross_entropy(model[2](z.index_select(0, order.argsort())), y, reduction="none")

    estimator = PerSample(engine)
    for _ in range(3):
        batch = torch.randn(7, 3, dtype=torch.float64), torch.randint(3, (7,))
        check(model, closure, batch, estimator)


def test_one_sample_is_compared_as_well():
    """Parameters that are used out of sight would never be trained."""

    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x @ weight

        @staticmethod
        def backward(ctx, g):
            x, weight = ctx.saved_tensors
            return g @ weight.T, x.T @ g

    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 3, bias=False)])

    def closure(x, y):
        return F.cross_entropy(Hidden.apply(model[0](x), model[1].weight.T), y, reduction="none")

    optimizer = F3EO(model, torch.optim.SGD, lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match=r"1\.weight do not add up.*hidden from torch functions"):
        optimizer.step(closure, torch.randn(1, 3), torch.tensor([1]))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


WORDS = {
    "mixes the 4 samples": lambda m, x: m(x) + m(x.roll(1, 0)).mean(0),
    "in another order": lambda m, x: m(x.flip(0)).flip(0),
    "equal parts": lambda m, x: torch.stack([m(row) for row in x]),
}


@pytest.mark.parametrize("word", WORDS)
def test_mixed_is_said_of_what_is_mixed(word):
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    x, y = torch.randn(4, 3), torch.randint(4, (4,))
    optimizer = F3EO(model, torch.optim.SGD, lr=0.1, fraction=1)
    with pytest.raises(ValueError, match=word):
        optimizer.step(closure_of(lambda x: WORDS[word](model, x)), x, y)


@torch.jit.script
def scripted(x):
    return x * torch.sigmoid(x)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_no_mode_sees_carries_samples(engine):
    """A scripted activation: its operations are hidden, its result has a graph."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 8), nn.Linear(8, 3)]).double()
    batch = torch.randn(6, 3, dtype=torch.float64), torch.randint(3, (6,))
    closure = closure_of(lambda x: model[1](scripted(model[0](x))))
    check(model, closure, batch, PerSample(engine))


def test_sparse_batches_are_refused():
    model = nn.Linear(3, 3)
    x, y = torch.randn(4, 3).to_sparse(), torch.randint(3, (4,))
    optimizer = F3EO(model, torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match=r"layout torch\.sparse_coo.*to_dense\(\)"):
        optimizer.step(closure_of(lambda x: torch.sparse.mm(x, model.weight.T)), x, y)


def test_what_is_refused_is_refused_again():
    """A user may catch the error and go on: nothing is kept of layouts that did not hold."""
    torch.manual_seed(0)
    hidden = torch.jit.script(nn.Linear(3, 3))
    model = nn.ModuleList([nn.Linear(3, 3), hidden])
    x, y = torch.randn(4, 3), torch.randint(3, (4,))
    optimizer = F3EO(model, torch.optim.SGD, lr=0.1, fraction=1, every=1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="do not add up"):
            optimizer.step(closure_of(lambda x: hidden(model[0](x))), x, y)
