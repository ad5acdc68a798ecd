"""Means of other powers of the per-sample gradient norms, against the loop over samples."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dense import truth
from f3eo import DoubleBackward, FiniteDifference, ModelSampled, PerSample
from f3eo.closure.problem import Problem

ENGINES = [(DoubleBackward(), 1e-10), (FiniteDifference(), 1e-5)]


class Network(nn.Module):
    """Leaves of every form of term: outer products with and without positions, dense, rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.convolution = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.embedding(x)
        z = torch.tanh(self.convolution(z.mT)).mT + z
        return self.head(self.norm(z).mean(1))


@pytest.fixture
def problem() -> Problem:
    torch.manual_seed(0)
    model = Network().double()
    batch = torch.randint(5, (6, 7)), torch.randint(3, (6,)), torch.rand(6, dtype=torch.float64)

    def closure(x, y, share):
        return share * F.cross_entropy(model(x), y, reduction="none")

    parameters = list(model.parameters())
    return Problem(closure, batch, parameters, [True] * len(parameters), model)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=["twice", "differences"])
def test_the_structure_gradient_is_the_loop_s(problem, engine, tolerance, power):
    found = PerSample(engine, power=power).gradients(problem)
    h = torch.cat([t.flatten() for t in found.structure])
    expected = truth(problem.model, problem.closure, *problem.batch, power=power).structure
    assert (h - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=["twice", "differences"])
def test_a_sample_without_a_gradient_adds_nothing(problem, engine, tolerance):
    problem.batch[2][2] = 0.0
    found = PerSample(engine, power=1).gradients(problem)
    h = torch.cat([t.flatten() for t in found.structure])
    expected = truth(problem.model, problem.closure, *problem.batch, power=1).structure
    assert (h - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=["twice", "differences"])
def test_at_power_one_the_scale_of_a_sample_s_loss_counts_once(problem, engine, tolerance):
    """c ℓ_i has norms c‖g_i‖ and Hessians c H_i: all times c gives h times c, at p = 2 c²."""
    first = PerSample(engine, power=1).gradients(problem)
    problem.batch[2].mul_(10)
    second = PerSample(engine, power=1).gradients(problem)
    for a, b in zip(first.structure, second.structure, strict=True):
        torch.testing.assert_close(10 * a, b, rtol=1e-3, atol=10 * tolerance)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_loss_gradient_and_trace_are_those_of_power_two(problem, power):
    for engine, _ in ENGINES:
        found = PerSample(engine, power=power).gradients(problem)
        plain = PerSample(DoubleBackward(), power=2).gradients(problem)
        torch.testing.assert_close(found.trace, plain.trace, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.gradient, plain.gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("power", [0.5, 2.5, float("nan")])
def test_powers_out_of_range_are_refused(power):
    with pytest.raises(ValueError, match="needs a power in"):
        PerSample(DoubleBackward(), power=power)


def test_sampled_labels_have_the_trace_alone():
    with pytest.raises(ValueError, match="needs power=2"):
        ModelSampled(PerSample(DoubleBackward(), power=1))
