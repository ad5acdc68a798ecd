"""What an instrument costs, in backward passes a batch, is what the page says."""

import pytest
import torch

from docs.pages import table
from f3eo.instruments import alignment, diagonal, memorisation, noise_scale, trace
from instruments.truths import dense

INSTRUMENTS = {f.__name__: f for f in (trace, diagonal, noise_scale, alignment, memorisation)}


def taken(monkeypatch, batches, call):
    """Backward passes that a further batch takes: the first one of a kind is probed."""
    counts, grad = [], torch.autograd.grad

    def counted(*args, **kwargs):
        counts.append(1)
        return grad(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", counted)
        call(batches[:1])
        one = len(counts)
        call(batches)
    return len(counts) - 2 * one


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_backward_passes_are_those_on_the_page(name, monkeypatch):
    d = dense("mlp")
    x, y = d.case.batch
    call = lambda data: INSTRUMENTS[name](d.model, d.closure, data)  # noqa: E731
    found = taken(monkeypatch, [(x, y), (x, y)], call)
    (row,) = [row for row in table("instruments.md", "function") if row[0] == f"`{name}`"]
    assert str(found) == row[-1]


def test_exact_labels_take_one_a_class(monkeypatch):
    d = dense("mlp")
    call = lambda data: trace(d.model, d.case.drawn, data, labels="exact")  # noqa: E731
    assert taken(monkeypatch, [d.case.batch, d.case.batch], call) == 3
