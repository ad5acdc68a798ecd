"""What is measured of a model, against closed forms and dense matrices."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from f3eo.bench.models.mlp import mlp
from f3eo.bench.run import measure as module
from f3eo.bench.run import tested
from f3eo.bench.run.calibration import calibration_error
from f3eo.bench.run.eigenvalue import top_eigenvalue
from f3eo.bench.run.measure import conclude, measure
from f3eo.bench.run.train import train
from f3eo.bench.tasks import TASKS, Samples
from f3eo.bench.tasks.task import cross_entropy


def test_calibration_error_of_a_case_done_by_hand():
    """0.94 and 0.96 share a bin, half right: 2 · |0.5 − 0.95|; 0.45 is wrong, 0.9 alone is right.

    0.9 has the bin below, (0.867, 0.933].
    """
    p = torch.tensor([[0.94, 0.03, 0.03], [0.96, 0.02, 0.02], [0.9, 0.1, 0.0], [0.3, 0.45, 0.25]])
    y = torch.tensor([0, 1, 0, 0])
    by_hand = (2 * 0.45 + 0.1 + 0.45) / 4
    assert calibration_error(p.log(), y) == pytest.approx(by_hand, abs=1e-6)
    assert calibration_error(p.log().view(2, 2, 3), y.view(2, 2)) == pytest.approx(
        by_hand, abs=1e-6
    )
    # One bin sees the mean confidence alone: |2/4 − 3.25/4|.
    assert calibration_error(p.log(), y, bins=1) == pytest.approx(0.3125, abs=1e-6)
    sure = torch.tensor([[100.0, 0.0]])
    assert calibration_error(sure, torch.tensor([0])) == 0
    assert calibration_error(sure, torch.tensor([1])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_top_eigenvalue_is_that_of_the_dense_hessian(seed):
    torch.manual_seed(seed)
    model = mlp(4, 6, 3).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,))
    names = dict(model.named_parameters())
    shapes = [p.shape for p in names.values()]

    def loss(row):
        parts = row.split([s.numel() for s in shapes])
        weights = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        return cross_entropy(torch.func.functional_call(model, weights, x), y).mean()

    row = torch.cat([p.detach().flatten() for p in names.values()])
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, row))
    found = top_eigenvalue(model, lambda x, y: cross_entropy(model(x), y), x, y)
    assert found == pytest.approx(dense[-1].item(), rel=1e-2)
    assert found == top_eigenvalue(model, lambda x, y: cross_entropy(model(x), y), x, y)


def test_a_model_that_is_sure_of_everything_has_no_curvature_left():
    """In float32 the softmax is exactly one-hot, and the Hessian a matrix of zeros."""
    torch.manual_seed(0)
    model, y = nn.Linear(3, 2), torch.tensor([0, 1])
    x = torch.eye(3)[:2]
    with torch.no_grad():
        model.weight.copy_(1e4 * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]))
    assert top_eigenvalue(model, lambda x, y: cross_entropy(model(x), y), x, y) == 0.0


def test_the_top_eigenvalue_is_the_largest_not_the_largest_in_size():
    model = nn.Linear(3, 1, bias=False)
    curvatures = torch.tensor([-10.0, 3.0, 1.0])

    def closure(x, y):
        return 0.5 * (curvatures * model.weight.square()).sum() * x

    assert top_eigenvalue(model, closure, torch.ones(4), torch.ones(4)) == pytest.approx(
        3, rel=1e-2
    )


class Positions(nn.Module):
    """Characters (N, T) -> logits (N, T, 5)."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.embedding(x).cumsum(1).tanh())


def test_positions_count_each_for_itself_and_chunks_do_not_matter(monkeypatch):
    torch.manual_seed(0)
    model, samples = Positions(), Samples(*torch.randint(5, (2, 7, 6)))
    whole = measure(model, cross_entropy, samples, samples)
    logits = model(samples.x)
    assert whole["test_accuracy"] == (logits.argmax(-1) == samples.y).sum().item() / 42
    mean = nn.functional.cross_entropy(logits.view(42, 5), samples.y.view(42)).item()
    assert whole["test_loss"] == pytest.approx(mean) == pytest.approx(whole["train_loss"])
    norms = []
    for x, y in zip(*samples, strict=True):
        loss = cross_entropy(model(x[None]), y[None]).sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(sum(g.square().sum().item() for g in gradient))
    assert whole["fisher_trace"] == pytest.approx(sum(norms) / 7, rel=1e-4)
    end = conclude(model, cross_entropy, samples, samples, whole)
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(tested, "CHUNK", 3)
    assert measure(model, cross_entropy, samples, samples) == pytest.approx(whole, rel=1e-5)
    chunked = conclude(model, cross_entropy, samples, samples, whole)
    empty = {name for name, value in end.items() if value is None}
    assert empty == {"corrupted_accuracy", "corrupted_loss"}  # characters are not corrupted
    assert {name for name, value in chunked.items() if value is None} == empty
    for name in end.keys() - empty:
        assert chunked[name] == pytest.approx(end[name], rel=1e-5, abs=1e-6)
    assert end["calibration_error"] == pytest.approx(calibration_error(logits, samples.y))


def test_tr_f_is_exact_where_the_pass_without_a_graph_cannot_be():
    """Weights that are written into another tensor, as a tied head is not, but this is."""
    torch.manual_seed(0)
    linear, samples = nn.Linear(3, 3), Samples(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, x):
            room = torch.zeros(3, 3)
            room[:] = self.linear.weight
            return x @ room.T + self.linear.bias

    plain, written = (
        measure(model, cross_entropy, samples, samples) for model in (linear, Written())
    )
    assert written == pytest.approx(plain, rel=1e-5)


def test_a_run_ends_with_the_whole_test_and_what_costs_more(make_run, monkeypatch):
    task = replace(TASKS["digits-mlp"], curve_test=10)
    monkeypatch.setitem(TASKS, "digits-mlp", task)
    result = train(make_run(budget=60, probe=300))
    final, curve = result.final, result.curve
    ends = {"calibration_error", "top_eigenvalue", "gap"}
    ends |= {"temperature", "scaled_calibration_error", "scaled_loss", "weight_noise_response"}
    parts = ("clean", "corrupted", "int8", "int4", "pruned50", "pruned80")
    ends |= {f"{part}_{kind}" for part in parts for kind in ("accuracy", "loss")}
    assert set(final) == {*curve, *ends} and None not in final.values()
    assert final["corrupted_accuracy"] < final["clean_accuracy"]
    assert 0 <= final["calibration_error"] < 0.5 and final["top_eigenvalue"] > 0
    assert final["gap"] == final["test_loss"] - final["train_loss"]
    for name in ("step", "gradients", "seconds", "train_loss", "fisher_trace"):
        assert final[name] == curve[name][-1]
    assert round(10 * curve["test_accuracy"][-1]) == pytest.approx(10 * curve["test_accuracy"][-1])
    n = 1197 * final["test_accuracy"]
    assert n == pytest.approx(round(n)) and final["test_accuracy"] != curve["test_accuracy"][-1]
    curve |= {"test_accuracy": [0.1, 0.8, 0.7], "test_loss": [2.0, 0.5, 0.6]}
    assert result.best == {"test_accuracy": 0.8, "test_loss": 0.5}


@pytest.mark.parametrize("score", ["accuracy", "loss"])
def test_the_target_is_the_first_point_that_reaches_it(score, make_run, monkeypatch):
    task = TASKS["digits-mlp"]
    values = train(make_run(budget=60)).curve[f"test_{score}"]
    place = 2
    monkeypatch.setitem(TASKS, task.name, replace(task, score=score, target=values[place]))
    first = next(
        i
        for i, v in enumerate(values)
        if (v >= values[place] if score == "accuracy" else v <= values[place])
    )
    assert 0 < first <= place
    result = train(make_run(budget=60))
    step = result.curve["step"][first]
    assert result.target == {"reached": True, "step": step, "gradients": step, "seconds": None}
    priced = train(make_run(budget=150, price=2.5))
    assert priced.steps == 60 and priced.target["seconds"] == 2.5 * step
    never = 1.1 if score == "accuracy" else 0.0
    monkeypatch.setitem(TASKS, task.name, replace(task, score=score, target=never))
    missed = train(make_run(budget=60)).target
    assert missed == {"reached": False, "step": None, "gradients": None, "seconds": None}
