"""TraceTarget: closed loops with plants, a quadratic model whose constrained optimum is known."""

import math
from itertools import pairwise

import pytest
import torch
from torch.optim import SGD

from cases import WHOLE, case
from control.plants import run
from f3eo import F3EO, ByRow, Cap, Coupled, DoubleBackward, PerSample
from f3eo.control import PI, Complexity, Share, TraceTarget
from f3eo.control.free_energy import optimal_noise
from f3eo.extend import Observation
from f3eo.instruments import trace
from f3eo.instruments.free_energy import MultiplicativeNoise, RelativePrior, free_energy


def hyperbola(top):
    """trace = top/(1 + λ), so λ = top/τ − 1 holds it at τ."""
    return lambda strength: top / (1 + strength)


@pytest.mark.parametrize("lag", [1.0, 15.0, 60.0])
@pytest.mark.parametrize(("top", "target"), [(3.0, 2.0), (5.0, 0.5), (1e3, 40.0)])
def test_it_settles_where_the_plant_is_at_its_target(top, target, lag):
    strength = TraceTarget(target)
    found = run(strength, hyperbola(top), 1500, lag=lag)
    assert found[-1] == pytest.approx(top / target - 1, rel=1e-3)
    assert abs(strength.course.error) < 1e-3
    assert strength.course.trace == pytest.approx(target, rel=1e-3)


def test_noise_leaves_the_mean_of_the_trace_at_its_target_not_that_of_its_logarithm():
    """Factors with mean 1 whose logarithm has the mean −0.5."""
    normal = torch.randn(6000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    strength = TraceTarget(0.5, memory=50)
    found = run(
        strength,
        hyperbola(5.0),
        6000,
        lag=15.0,
        noise=lambda step: float((normal[step] - 0.5).exp()),
    )
    mean = sum(5 / (1 + x) for x in found[2000:]) / 4000
    assert mean == pytest.approx(0.5, rel=0.05)


def test_a_base_below_the_target_is_left_to_itself_and_caught_when_it_rises():
    strength = TraceTarget(2.0, bounds=(1e-3, 10.0))
    assert run(strength, hyperbola(0.5), 2000)[-1] == pytest.approx(1e-3)
    found = run(strength, hyperbola(6.0), 250, first=2000)
    assert found[-1] == pytest.approx(2.0, rel=0.02)  # 250 steps, whatever the 2,000 were


@pytest.mark.parametrize("by", ["limit", "bound"])
def test_a_target_out_of_reach_winds_nothing_up(by):
    """For 5,000 steps the trace cannot come down to τ; then the plant changes."""
    strength = TraceTarget(0.5, bounds=(0.01, 100.0 if by == "limit" else 3.0), limit=1.5)
    gradient = 2.0 if by == "limit" else 1e9
    found = run(strength, hyperbola(20.0), 5000, gradient=gradient)
    assert found[-1] == pytest.approx(3.0)
    assert strength.course.limited == (by == "limit")
    assert strength.course.error == pytest.approx(math.log(10), rel=0.1)  # 20/4 over 0.5
    found = run(strength, hyperbola(1.0), 300, gradient=gradient, first=5000)
    assert found[-1] == pytest.approx(1.0, rel=0.05)


def test_a_target_may_follow_a_schedule():
    strength = TraceTarget(lambda step: 2.0 if step < 800 else 0.5)
    assert run(strength, hyperbola(5.0), 800)[-1] == pytest.approx(1.5, rel=1e-3)
    assert run(strength, hyperbola(5.0), 800, first=800)[-1] == pytest.approx(9.0, rel=1e-2)


def test_a_share_measures_the_base_by_itself_and_then_halves_its_trace():
    strength = TraceTarget(Share(0.5, after=30), memory=10)
    found = run(strength, hyperbola(6.0), 29)
    assert found == [0.0] * 29 and math.isnan(strength.course.target)
    found = run(strength, hyperbola(6.0), 1000, first=29)
    assert found[0] > 0 and strength.course.own == 6.0 and strength.course.target == 3.0
    assert found[-1] == pytest.approx(1.0, rel=1e-3)


def test_steps_without_a_measurement_change_nothing():
    strength = TraceTarget(0.5)
    strength.at(Observation(0, 1.0, torch.tensor(2.0)))
    before = strength.course
    for step in range(1, 5):
        old = Observation(step, 1.0, torch.tensor(2.0), measured=False)
        assert strength.at(old) == before.strength
    assert strength.course == before
    assert TraceTarget(0.5, start=0.3).at(Observation(0, 1.0, None)) == 0.3


def test_a_trace_of_zero_or_of_no_finite_number_is_survived():
    strength = TraceTarget(0.5)
    strength.at(Observation(0, 1.0, torch.tensor(0.0)))
    assert strength.course.strength == pytest.approx(0.01)
    strength.at(Observation(1, 1.0, torch.tensor(math.inf)))
    assert strength.course.measured == 1
    assert run(strength, hyperbola(5.0), 1500, first=2)[-1] == pytest.approx(9.0, rel=1e-3)


SLOPES = torch.tensor([1.0, 3.0], dtype=torch.float64)
PLACES = torch.tensor([0.0, 1.0], dtype=torch.float64)


def test_a_quadratic_model_goes_to_its_constrained_optimum_and_multiplier():
    """ℓ_i = ½ a_i (θ − b_i)²: L + ½μ Tr F is least at θ = Σ (a + μa²) b / Σ (a + μa²).

    λ is a distance: μ of ½ Tr F is λ/√Tr F.
    """
    multiplier = 0.5
    weight = SLOPES + multiplier * SLOPES**2
    wanted = float((weight * PLACES).sum() / weight.sum())
    target = float((SLOPES * (wanted - PLACES)).square().mean())
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    strength = TraceTarget(target, bounds=(0.01, 2.0), controller=PI(2.0, 0.5), limit=1e9)
    optimizer = F3EO(
        [theta],
        SGD,
        lr=0.05,
        estimator=PerSample(DoubleBackward(), power=2),
        rule=Coupled(),
        strength=strength,
        fraction=1,
        every=1,
    )
    for _ in range(600):
        optimizer.step(lambda a, b: 0.5 * a * (theta - b) ** 2, SLOPES, PLACES)
    assert float(theta.detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(optimizer.trace) == pytest.approx(target, rel=1e-4)
    assert strength.course.strength == pytest.approx(multiplier * target**0.5, rel=1e-3)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_it_is_a_distance_as_cap(power):
    observed = Observation(0, 1.0, torch.tensor(4.0), power)
    strength = TraceTarget(4.0, start=0.3, limit=1.0)
    assert strength.at(observed) == pytest.approx(Cap(0.3).at(observed))
    assert strength.multiplier(0.3, 2.0, 8.0) == 0.25


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"target": -1.0}, ValueError, r"finite target > 0, received -1.0; .* Share\(0.5\)"),
        ({"target": 0}, ValueError, "target > 0, received 0"),
        ({"target": math.inf}, ValueError, "received inf"),
        ({"target": "0.5"}, TypeError, r"number, a function .* Share\(0.5\) .* received '0.5'"),
        ({"target": 1, "start": 200.0}, ValueError, "start within its bounds .* received 200.0"),
        ({"target": 1, "bounds": (0.0, 1.0)}, ValueError, r"0 < low < high, received \(0.0, 1.0\)"),
        ({"target": 1, "bounds": (2.0, 1.0)}, ValueError, r"received \(2.0, 1.0\)"),
        ({"target": 1, "memory": 0.5}, ValueError, "memory >= 1, received 0.5"),
        ({"target": 1, "controller": 0.5}, TypeError, r"PI\(\) as its controller, received 0.5"),
        ({"target": 1, "limit": 0}, ValueError, "limit > 0, received 0"),
    ],
)
def test_bad_arguments_are_refused_with_the_cure(arguments, error, said):
    with pytest.raises(error, match=said):
        TraceTarget(**arguments)


@pytest.mark.parametrize("share", [0, -0.5, 1.01, math.nan])
def test_a_share_outside_of_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"share in \(0, 1\], received"):
        Share(share)


def test_a_share_needs_whole_steps():
    with pytest.raises(TypeError, match=r"an integer as after, received 0\.5"):
        Share(0.5, after=0.5)
    with pytest.raises(ValueError, match="after >= 1 measured steps, received 0"):
        Share(0.5, after=0)


def test_a_schedule_that_gives_no_target_is_told_with_its_step():
    strength = TraceTarget(lambda step: 1.0 - step)
    strength.at(Observation(0, 1.0, torch.tensor(1.0)))
    before = strength.course
    with pytest.raises(ValueError, match=r"finite numbers > 0, gave at step 1: 0\.0"):
        strength.at(Observation(1, 1.0, torch.tensor(1.0)))
    assert strength.course == before


def test_the_gains_are_those_of_its_controller():
    """With K_P alone λ = λ_0 (m/τ)^K_P."""
    strength = TraceTarget(2.0, start=0.1, controller=PI(2.0, 0.0), memory=1)
    found = [strength.at(Observation(k, 1.0, torch.tensor(t))) for k, t in enumerate((2.0, 6.0))]
    assert found == pytest.approx([0.1, 0.9])
    assert all(a < b for a, b in pairwise(found))


@pytest.mark.parametrize("variance", [0.3, 1.0])
@pytest.mark.parametrize("nats", [1e-6, 0.7, 40.0, 3e3])
def test_nats_of_complexity_are_those_of_the_best_noise(nats, variance):
    size, samples = 58, 600
    trace = Complexity(nats, samples, variance).trace(size)
    share = optimal_noise(trace, size, samples, variance) / variance
    u = -math.log(share) if share > 0.5 else math.inf
    divergence = 0.5 * size * (share - 1 - math.log(share))
    assert divergence == pytest.approx(nats, rel=1e-6 if u > 1e-2 else 1e-3)


def test_nats_of_complexity_are_those_that_the_instrument_measures():
    c = case("mlp")
    given = c.model, c.losses, [c.batch], RelativePrior(0.8)
    energy = free_energy(*given, posterior=MultiplicativeNoise(metric=ByRow(), of="fisher"))
    size = sum(p.numel() for p in c.model.parameters())
    own = 0.5 * size / 0.8  # ½‖θ/D‖²/s²: by rows ‖θ/D‖² is P
    target = Complexity(energy.complexity.value - own, 6, 0.8)
    assert target.trace(size) == pytest.approx(trace(*given[:3], metric=ByRow()).value, rel=1e-8)


def test_a_target_in_nats_counts_the_parameters_of_the_optimizer():
    c = case("mlp")
    strength = TraceTarget(Complexity(5.0, 6))
    optimizer = F3EO(c.model, SGD, lr=0.01, strength=strength, **WHOLE)
    optimizer.step(c.losses, *c.batch)
    size = sum(p.numel() for p in c.model.parameters())
    assert strength.course.target == Complexity(5.0, 6).trace(size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 6), "finite nats > 0, received 0.0"),
        ((math.inf, 6), "finite nats > 0, received inf"),
        ((1.0, 0), "at least 1, received 0"),
        ((1.0, 6, -1.0), "finite variance > 0, received -1.0"),
    ],
)
def test_complexities_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Complexity(*arguments)
