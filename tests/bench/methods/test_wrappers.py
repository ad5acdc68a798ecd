"""The peers that wrap a base and are written here or put together here, against their formulas."""

import pytest
import torch
from torch import nn

from bench.quadratic import PLAIN, Quadratic
from f3eo.bench.methods import METHODS
from f3eo.bench.methods.bases import BASES


@pytest.fixture
def problem():
    return Quadratic()


def test_a_part_climbs_and_the_batch_descends():
    """ℓ_i = ½ ‖θ − x_i‖²: the part and the batch have gradients of their own."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(5))
    model = nn.Linear(4, 1, bias=False)
    theta = model.weight[0].detach().clone()
    options = METHODS["partial_sam"].options({"rho": 0.3, "fraction": 0.25, **PLAIN})
    stepper = METHODS["partial_sam"].build(model, options, 0)
    stepper.step(lambda x, y: (model.weight[0] - x).square().sum(1) / 2, x, torch.zeros(8))
    climb = theta - x[:2].mean(0)
    gradient = theta + 0.3 * climb / climb.norm() - x.mean(0)
    torch.testing.assert_close(model.weight[0].detach(), theta - 0.1 * gradient)


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_part_of_none_or_more_than_the_batch_is_refused(problem, fraction):
    with pytest.raises(
        ValueError, match=rf"fraction must be in \(0, 1\], got {fraction}; 1 is SAM"
    ):
        problem.stepped("partial_sam", fraction=fraction)


def msam(problem, base, steps):
    """The paper's algorithm 1, on dense vectors: the gradient at θ − ρ m/‖m‖."""
    theta, m, square = problem.theta, torch.zeros(4), torch.zeros(4)
    for t in range(1, steps + 1):
        moved = theta - 0.3 * m / m.norm() if t > 1 else theta
        g = problem.gradient(moved)
        if base == "sgd":
            m = 0.9 * m + g
            theta = theta - 0.1 * m
        else:
            m, square = 0.9 * m + 0.1 * g, 0.999 * square + 0.001 * g**2
            scale = (square / (1 - 0.999**t)).sqrt() + 1e-8
            theta = theta - 0.1 * (m / (1 - 0.9**t)) / scale
    return theta


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_momentum_sam_takes_its_gradient_along_the_bases_momentum(problem, base):
    expected = msam(problem, base, 4)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "rho": 0.3, "base": base}
    problem.stepped("msam", 4, **options)
    torch.testing.assert_close(problem.theta, expected, rtol=1e-4, atol=1e-5)


def test_momentum_sam_moves_matrices_and_vectors_of_muon_by_one_distance():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    options = METHODS["msam"].options({"base": "muon", "lr": 1e-3, "rho": 0.7})
    stepper = METHODS["msam"].build(model, options, 0)
    x, y, seen = torch.randn(6, 4), torch.randint(2, (6,)), []

    def closure(x, y):
        seen.append(nn.utils.parameters_to_vector(model.parameters()).detach())
        return nn.functional.cross_entropy(model(x), y, reduction="none")

    for _ in range(2):
        here = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        stepper.step(closure, x, y)
    moved = seen[1] - here
    assert moved.norm() == pytest.approx(0.7, rel=1e-5) and (moved != 0).all()


def test_without_momentum_the_distance_has_no_effect_and_is_refused():
    method = METHODS["msam"]
    assert "nothing to move along" in method.idle(method.options({"momentum": 0.0}))["rho"]
    assert not method.idle(method.options({"momentum": 0.0, "base": "adamw"}))
    assert not method.idle(method.options())


def test_the_average_is_the_mean_of_the_first_steps_and_then_forgets(problem):
    """a ← a + (θ − a)/min(t, h); the base trains as it does alone."""
    theta, average, velocity = problem.theta, torch.zeros(4), torch.zeros(4)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    stepper = METHODS["ema"].build(
        problem.model, METHODS["ema"].options({"horizon": 3, **options}), 0
    )
    for t in range(1, 7):
        velocity = 0.9 * velocity + problem.gradient(theta)
        theta = theta - 0.1 * velocity
        average = average + (theta - average) / min(t, 3)
        stepper.step(problem.closure, torch.zeros(2, 4), torch.zeros(2))
        torch.testing.assert_close(problem.theta, theta)
        stepper.rest()
        torch.testing.assert_close(problem.theta, average)
        stepper.resume()
    torch.testing.assert_close(problem.theta, theta)
    with pytest.raises(ValueError, match=r"horizon must be at least 1 step, got 0\.5"):
        METHODS["ema"].build(problem.model, METHODS["ema"].options({"horizon": 0.5}), 0)


def test_schedule_free_over_sgd_takes_gradients_between_the_iterate_and_its_mean(problem):
    """y = (1 − β) z + β x, z ← z − γ ∇L(y) with γ = lr/(1 − β), x the mean of all z."""
    z = x = problem.theta
    options = METHODS["schedule_free"].options({"lr": 0.02, "momentum": 0.8, "weight_decay": 0.0})
    stepper = METHODS["schedule_free"].build(problem.model, options, 0)
    for t in range(1, 6):
        y = 0.2 * z + 0.8 * x
        torch.testing.assert_close(problem.theta, y)
        z = z - 0.1 * problem.gradient(y)
        x = x + (z - x) / t
        stepper.step(problem.closure, torch.zeros(2, 4), torch.zeros(2))
        stepper.rest()
        torch.testing.assert_close(problem.theta, x)
        stepper.resume()


def test_the_last_layers_penalty_is_the_formulas():
    """(1/B) Σ (ℓ_i + c_a ‖a_i‖²) + c_w ‖W‖², by hand on two linear layers in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    twin = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    twin.load_state_dict(model.state_dict())
    x, y = torch.randn(6, 5, 4).double(), torch.randint(2, (6, 5))  # five positions a sample
    penalties = {"weight_penalty": 0.3, "activation_penalty": 0.2}
    options = METHODS["last_layer"].options({**PLAIN, **penalties})
    stepper = METHODS["last_layer"].build(model, options, 0)

    def losses(module):
        logits = module(x).flatten(0, 1)
        plain = nn.functional.cross_entropy(logits, y.flatten(), reduction="none")
        return plain.view(y.shape).mean(1)

    loss = stepper.step(lambda x, y: losses(model), x, y)
    hidden = twin[:2](x)
    plain = losses(twin).mean()
    whole = plain + 0.2 * hidden.square().sum() / 30 + 0.3 * twin[2].weight.square().sum()
    gradients = torch.autograd.grad(whole, list(twin.parameters()))
    torch.testing.assert_close(loss, plain.detach())
    for new, old, g in zip(model.parameters(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(new.detach(), old.detach() - 0.1 * g)
    with pytest.raises(ValueError, match=r"Flatten has no nn\.Linear to penalise"):
        METHODS["last_layer"].build(nn.Sequential(nn.Flatten())[0], options, 0)


WRAPPERS = {"sam": {"rho": 0.0}, "partial_sam": {"rho": 0.0, "fraction": 1.0}, "msam": {"rho": 0.0}}
WRAPPERS |= {"ema": {}, "last_layer": {"weight_penalty": 0.0, "activation_penalty": 0.0}}


@pytest.mark.parametrize("base", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("method", WRAPPERS)
def test_a_wrapper_that_does_nothing_is_its_base(method, base):
    def trained(name, **options):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        x, y = torch.randn(6, 4), torch.randint(2, (6,))
        stepper = METHODS[name].build(model, METHODS[name].options(options), 0)
        for _ in range(3):
            loss = lambda x, y: nn.functional.cross_entropy(model(x), y, reduction="none")  # noqa: E731
            stepper.step(loss, x, y)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    rates = {"lr": 0.01, "weight_decay": 0.1}
    own = WRAPPERS[method] | {"base": base, "momentum": BASES[base].momentum}
    alone = {} if base == "adamw" else {"momentum": BASES[base].momentum}
    expected = trained(base, **rates, **alone)
    torch.testing.assert_close(trained(method, **rates, **own), expected, rtol=1e-5, atol=1e-6)
