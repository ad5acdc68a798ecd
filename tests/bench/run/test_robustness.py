"""Models with disturbed weights and inputs, against loops and closed forms."""

import pytest
import torch
from torch import nn

from f3eo.bench.models.mlp import mlp
from f3eo.bench.run import robustness as module
from f3eo.bench.run.prune import pruned
from f3eo.bench.run.quantise import quantised
from f3eo.bench.run.robustness import first, robustness
from f3eo.bench.run.tested import tested as judge_samples
from f3eo.bench.run.weight_noise import noise_response
from f3eo.bench.tasks import Samples
from f3eo.bench.tasks.task import cross_entropy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_four_bits_by_hand():
    """The row's scale is 7 / 7 = 1; the second row's is 0.5."""
    w = torch.tensor([[7.0, -2.4, 0.6], [3.5, -0.3, 0.1], [0.0, 0.0, 0.0]])
    b = torch.tensor([0.123])
    found = quantised({"w": w, "b": b}, 4)
    by_hand = torch.tensor([[7.0, -2.0, 1.0], [3.5, -0.5, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(found["w"], by_hand) and torch.equal(found["b"], b)
    with pytest.raises(ValueError, match="at least 2 bits, got 1"):
        quantised({"w": w}, 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 3, 3), (4, 2, 5)])
def test_every_output_row_has_its_own_grid(bits, shape):
    w = torch.randn(shape, generator=generator())
    found, top = quantised({"w": w}, bits)["w"], 2 ** (bits - 1) - 1
    for row, rounded in zip(w.double(), found.double(), strict=True):
        scale = row.abs().max() / top
        torch.testing.assert_close(rounded, scale * (row / scale).round(), rtol=1e-6, atol=1e-6)
    assert len(found[0].unique()) <= 2**bits - 1
    assert not torch.equal(found, w) and torch.equal(w, torch.randn(shape, generator=generator()))


def test_the_smallest_weights_of_each_matrix_are_cut():
    w = torch.tensor([[0.1, -3.0, 2.0], [-0.2, 0.3, -1.0]])
    kernel, b = torch.randn(3, 2, 5, generator=generator()), torch.tensor([1e-9, 2.0])
    found = pruned({"w": w, "kernel": kernel, "b": b}, 0.5)
    assert torch.equal(found["w"], torch.tensor([[0.0, -3.0, 2.0], [0.0, 0.0, -1.0]]))
    assert torch.equal(found["b"], b)
    order = kernel.abs().flatten().argsort()
    expected = kernel.flatten().clone()
    expected[order[:15]] = 0
    assert torch.equal(found["kernel"], expected.view_as(kernel))
    assert torch.equal(pruned({"w": w}, 0)["w"], w)
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1.5"):
        pruned({"w": w}, 1.5)


def test_noise_on_a_quadratic_costs_its_second_order_and_no_first_order():
    """L = Σ (a w + c w²/2): E[L(w(1 + σε))] − L = σ² Σ c w² / 2, whatever a is."""
    w = {"w": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)}
    a, c = torch.tensor([1e6, 2e6, -3e6]).double(), torch.tensor([3.0, 1.0, 8.0]).double()

    def loss(moved):
        return (a * moved["w"] + c * moved["w"] ** 2 / 2).sum().item()

    found = noise_response(loss, w, generator(), sigma=0.2, draws=20_000)
    assert found == pytest.approx(0.02 * (c * w["w"] ** 2).sum().item(), rel=0.03)


def test_noise_on_a_network_is_that_of_its_dense_hessian():
    torch.manual_seed(0)
    model = mlp(3, 5, 3).double()
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randint(3, (30,))
    weights = dict(model.named_parameters())

    def loss(moved):
        return cross_entropy(torch.func.functional_call(model, dict(moved), (x,)), y).mean()

    row = torch.cat([p.detach().flatten() for p in weights.values()])
    sizes = [p.numel() for p in weights.values()]

    def of_row(row):
        parts = zip(weights, row.split(sizes), strict=True)
        return loss({n: part.view_as(weights[n]) for n, part in parts})

    hessian = torch.autograd.functional.hessian(of_row, row)
    expected = 0.01**2 / 2 * (row.square() * hessian.diag()).sum().item()
    found = noise_response(lambda w: loss(w).item(), weights, generator(), 0.01, 4_000)
    assert found == pytest.approx(expected, rel=0.1)


def test_draws_are_pairs_of_opposite_noise_from_the_generator():
    w = {"w": torch.ones(4)}
    seen = []

    def loss(moved):
        seen.append(moved["w"].clone())
        return moved["w"].sum().item()

    noise_response(loss, w, generator(3), sigma=0.5, draws=4)
    drawn = generator(3)
    for pair in (seen[0:2], seen[2:4]):
        step = 0.5 * torch.randn(4, generator=drawn)
        torch.testing.assert_close(pair[0], 1 + step)
        torch.testing.assert_close(pair[1], 1 - step)
    assert torch.equal(seen[4], w["w"])
    with pytest.raises(ValueError, match="even, got 3"):
        noise_response(loss, w, generator(), draws=3)


def shifted(x, generator):
    return x + 1


def scaled(x, generator):
    return x * torch.rand((), generator=generator)


def test_what_is_left_of_a_model_is_what_a_changed_copy_gives():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    test = Samples(torch.randn(40, 4), torch.randint(3, (40,)))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    found = robustness(model, cross_entropy, test, (shifted, scaled))

    def judged(weights=before, x=test.x):
        copy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        copy.load_state_dict(weights)
        end = judge_samples(copy, cross_entropy, Samples(x, test.y))
        return end.accuracy, end.loss

    for name, weights in {
        "clean": before,
        "int8": quantised(before, 8),
        "int4": quantised(before, 4),
        "pruned50": pruned(before, 0.5),
        "pruned80": pruned(before, 0.8),
    }.items():
        pair = found[f"{name}_accuracy"], found[f"{name}_loss"]
        assert pair == pytest.approx(judged(weights), rel=1e-6)
    factor = torch.rand((), generator=generator(module.SEED))
    corrupted = [judged(x=test.x + 1), judged(x=test.x * factor)]
    for place, entry in enumerate(("accuracy", "loss")):
        mean = sum(pair[place] for pair in corrupted) / 2
        assert found[f"corrupted_{entry}"] == pytest.approx(mean, rel=1e-6)
    response = noise_response(lambda w: judged(w)[1], before, generator(module.SEED))
    assert found["weight_noise_response"] == pytest.approx(response, rel=1e-4, abs=1e-7)
    assert found == robustness(model, cross_entropy, test, (shifted, scaled))
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) and p.requires_grad


def test_samples_and_labels_are_bounded_and_what_is_not_finite_is_none(monkeypatch):
    many = Samples(torch.zeros(3000, 2), torch.zeros(3000, dtype=torch.int64))
    assert len(first(many).y) == 1000
    text = Samples(torch.zeros(500, 64), torch.zeros(500, 64, dtype=torch.int64))
    assert len(first(text).y) == 10_000 // 64
    long = Samples(torch.zeros(3, 20_000), torch.zeros(3, 20_000, dtype=torch.int64))
    assert len(first(long).y) == 1
    model = nn.Linear(2, 2)
    small = Samples(torch.full((4, 2), torch.inf), torch.zeros(4, dtype=torch.int64))
    found = robustness(model, cross_entropy, small, ())
    assert found["corrupted_accuracy"] is None and found["corrupted_loss"] is None
    assert found["clean_loss"] is None and found["weight_noise_response"] is None
    assert found["clean_accuracy"] is not None
