"""The diagonal of the Fisher matrix against squares of single samples' gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense import flat
from f3eo import Categorical
from f3eo.fisher.ghost.gradients.terms import Outer, Rows, Term
from f3eo.instruments import diagonal, trace
from instruments.truths import MODELS, close, dense


def check(found, d):
    expected = d.shares @ d.gradients.square()
    assert list(found) == list(d.slices)
    shapes = [p.shape for p in d.model.parameters() if p.requires_grad]
    assert [t.shape for t in found.values()] == shapes
    close(flat(list(found.values())), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_mean_of_squares(name, weighted):
    d = dense(name, weighted=weighted)
    for memory in (2**28, 1):
        check(diagonal(d.model, d.closure, d.data, memory=memory), d)


def test_one_position_writes_no_gradient_out(monkeypatch):
    """Nor does an embedding that looks one word up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(4, 3), nn.Tanh()).double()
    x, y = torch.tensor([[0], [3], [3], [1]]), torch.tensor([0, 1, 2, 0])

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    gradients = []
    for i in range(4):
        g = torch.autograd.grad(closure(x[i : i + 1], y[i : i + 1]).sum(), model.parameters())
        gradients.append(flat(g))
    diagonal(model, closure, [(x, y)])  # the first batch of a kind is probed

    def refuse(*_):
        raise AssertionError("a gradient was written out")

    for term in (Outer, Rows, Term):
        monkeypatch.setattr(term, "rows", refuse)
    found = diagonal(model, closure, [(x, y)])
    close(flat(list(found.values())), torch.stack(gradients).square().mean(0))


def test_little_memory_takes_one_sample_at_a_time(monkeypatch):
    d, sizes = dense("attention"), []
    rows = Outer.rows

    def watched(self, part):
        sizes.append(part.stop - part.start)
        return rows(self, part)

    monkeypatch.setattr(Outer, "rows", watched)
    diagonal(d.model, d.closure, d.data)
    most, _ = max(sizes), sizes.clear()
    diagonal(d.model, d.closure, d.data, memory=1)
    assert (most, max(sizes)) == (3, 1)


@pytest.mark.parametrize("name", ["mlp", "cnn", "regression", "attention"])
def test_the_model_s_own_labels_give_its_trace(name):
    d = dense(name)
    for labels in ("drawn", "exact"):
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        found = diagonal(d.model, d.case.drawn, d.data, labels=labels, generator=generators[0])
        whole = trace(d.model, d.case.drawn, d.data, labels=labels, generator=generators[1])
        for key, part in whole.by_parameter().items():
            close(found[key].sum(), part.value)


def test_the_model_s_own_labels_with_weights():
    d = dense("attention")

    def closure(x, y):
        return Categorical(d.model(x), y, ignore_index=4, per_token=True)

    found = diagonal(d.model, closure, d.data, labels="exact")
    for key, part in trace(d.model, closure, d.data, labels="exact").by_parameter().items():
        close(found[key].sum(), part.value)


def test_exact_labels_are_the_dense_fisher():
    """diag Σ_i J_iᵀ (diag p − p pᵀ) J_i / N."""
    d = dense("mlp")
    expected = 0
    for x in d.case.batch[0]:
        z = d.model(x[None])[0]
        jacobian = torch.stack(
            [flat(torch.autograd.grad(v, d.model.parameters(), retain_graph=True)) for v in z]
        )
        p = z.detach().softmax(0)
        expected = expected + (jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).diagonal() / 6
    found = diagonal(d.model, d.case.drawn, d.data, labels="exact")
    close(flat(list(found.values())), expected)


def test_single_precision_sums_in_double():
    d = dense("mlp")
    model = d.model.float()
    data = [(x.float(), y) for x, y in d.data]
    found = diagonal(model, lambda x, y: Categorical(model(x), y), data)
    assert all(t.dtype == torch.float64 for t in found.values())
    close(flat(list(found.values())), d.gradients.square().mean(0), 1e-4)


def test_gradients_that_are_not_finite_show():
    model = nn.Linear(2, 1)
    x = torch.tensor([[1.0, 2.0], [torch.inf, 0.0]])
    found = diagonal(model, lambda x: model(x)[:, 0].square(), [x])
    assert all(t.isnan().all() for t in found.values())
    assert [t.shape for t in found.values()] == [(1, 2), (1,)]


def test_bad_input():
    d = dense("mlp")
    with pytest.raises(ValueError, match="received 'both'"):
        diagonal(d.model, d.closure, d.data, labels="both")
    with pytest.raises(ValueError, match="memory > 0 bytes, received 0"):
        diagonal(d.model, d.closure, d.data, memory=0)
