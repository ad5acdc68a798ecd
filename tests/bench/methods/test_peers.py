"""What the packages' code does, against the formulas of the papers: a name is no proof."""

import pytest
import torch

from bench.quadratic import PLAIN, Quadratic
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.spaces import TUNED
from f3eo.bench.plan.study import facts
from f3eo.bench.tasks import TASKS


@pytest.fixture
def problem():
    return Quadratic()


def sam(problem, theta, g, rho):
    return problem.gradient(theta + rho * g / g.norm())


def asam(problem, theta, g, rho):
    return problem.gradient(theta + rho * theta**2 * g / (theta.abs() * g).norm())


def gsam(problem, theta, g, rho):
    there = sam(problem, theta, g, rho)
    return there - 0.4 * (g - (g @ there) / (there @ there) * there)


def wsam(problem, theta, g, rho):
    weight = 0.7 / (1 - 0.7)
    return g + weight * (sam(problem, theta, g, rho) - g)


def penalty(problem, theta, g, rho):
    return 0.2 * g + 0.8 * sam(problem, theta, g, rho)


@pytest.mark.parametrize(
    "name, formula, own",
    [
        ("penalty", penalty, {"alpha": 0.8}),
        ("sam", sam, {}),
        ("asam", asam, {}),
        ("gsam", gsam, {"alpha": 0.4}),
        ("wsam", wsam, {"gamma": 0.7}),
        ("fsam", sam, {}),
        ("looksam", sam, {"k": 5}),
    ],
)
def test_sharpness_aware_methods_take_their_first_step_by_the_formula(problem, name, formula, own):
    theta = problem.theta
    expected = theta - 0.1 * formula(problem, theta, problem.gradient(theta), 0.3)
    problem.stepped(name, rho=0.3, **PLAIN, **own)
    torch.testing.assert_close(problem.theta, expected)


def test_the_penalty_is_in_the_gradient_and_so_in_the_momentum(problem):
    theta, velocity = problem.theta, torch.zeros(4)
    for _ in range(3):
        velocity = 0.9 * velocity + penalty(problem, theta, problem.gradient(theta), 0.3)
        theta = theta - 0.1 * velocity
    problem.stepped("penalty", 3, rho=0.3, alpha=0.8, **(PLAIN | {"momentum": 0.9}))
    torch.testing.assert_close(problem.theta, theta, rtol=1e-4, atol=1e-5)


def test_looksam_reuses_the_part_across_the_gradient_between_its_looks(problem):
    theta, alpha = problem.theta, 0.7
    g = problem.gradient(theta)
    there = sam(problem, theta, g, 0.3)
    across = there - (there @ g) / (g @ g) * g
    theta = theta - 0.1 * there
    g = problem.gradient(theta)
    expected = theta - 0.1 * (g + alpha * g.norm() / across.norm() * across)
    problem.stepped("looksam", 2, rho=0.3, k=5, alpha=alpha, **PLAIN)
    torch.testing.assert_close(problem.theta, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distribution, kurtosis", [("rademacher", 1.0), ("gaussian", 3.0)])
@pytest.mark.parametrize("name", ["adahessian", "sophia"])
def test_hutchinsons_probes_have_the_mean_and_the_variance_of_theory(
    problem, name, distribution, kurtosis
):
    """E z∘Az = diag A; Var_i = Σ_{j≠i} A_ij² + (kurtosis − 1) A_ii². An old sign bug fails both."""
    stepper = problem.stepped(name, lr=0.0, weight_decay=0.0)
    optimizer = stepper.optimizer
    optimizer.distribution, optimizer.update_period = distribution, 1
    (state,) = optimizer.state.values()
    drawn = []
    for _ in range(2000):
        stepper.step(problem.closure, torch.zeros(2, 4), torch.zeros(2))
        drawn.append(state["hessian"][0].clone())
    drawn, diagonal = torch.stack(drawn), problem.a.diag()
    variance = problem.a.square().sum(1) - diagonal**2 + (kurtosis - 1) * diagonal**2
    error = (drawn.mean(0) - diagonal) / (variance / len(drawn)).sqrt()
    assert error.abs().max() < 4
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.25, atol=0)


def test_sophia_clips_and_steps_downhill(problem):
    theta = problem.theta
    problem.stepped("sophia", lr=0.5, p=0.01)
    g = problem.gradient(theta)
    assert (problem.theta - theta).abs().max() <= 0.5 * 0.01 + 1e-7
    assert ((problem.theta - theta) * g <= 0).all()


def test_bsam_multiplies_the_gradient_by_the_weight_decay(problem):
    """Upstream's fault, as the note of the method says: without weight decay nothing moves."""
    theta = problem.theta
    optimizer = (
        METHODS["bsam"]
        .build(problem.model, METHODS["bsam"].options({"weight_decay": 0.0, "num_data": 10**9}), 0)
        .optimizer
    )

    def closure():
        optimizer.zero_grad()
        loss = problem.closure(None, [0]).mean()
        loss.backward()
        return loss

    closure()  # or the first step raises
    for _ in range(5):
        before = problem.theta
        optimizer.step(closure)
    perturbation = optimizer.param_groups[0]["rho"] * problem.gradient(before).norm()
    assert (problem.theta - theta).norm() < 10 * perturbation


def test_shampoo_and_soap_reach_the_minimum(problem):
    minimum = torch.linalg.solve(problem.a, -problem.b)
    for name, rate in (("shampoo", 0.5), ("soap", 0.02)):
        fresh = Quadratic()
        fresh.stepped(name, 400, lr=rate, weight_decay=0.0)
        assert (fresh.theta - minimum).norm() < 0.1 * (problem.theta - minimum).norm()


def test_ivon_takes_its_gradient_at_drawn_weights_and_returns(problem):
    seen, theta = [], problem.theta
    options = METHODS["ivon"].options({"lr": 0.0, "ess": 10.0, "hess_init": 0.5})
    stepper = METHODS["ivon"].build(problem.model, options, 0)

    def closure(x, y):
        seen.append(problem.theta - theta)
        return problem.closure(x, y)

    for _ in range(1000):
        stepper.step(closure, torch.zeros(2, 4), torch.zeros(2))
    torch.testing.assert_close(problem.theta, theta)
    spread = torch.stack(seen[:200]).std()  # before the Hessian has moved
    assert spread == pytest.approx((10 * 0.5) ** -0.5, rel=0.15)


@pytest.mark.parametrize("method", TUNED)
def test_every_tuned_method_steps_on_a_transformer(method):
    """Fused attention has no second derivative, which some of them need."""
    task = TASKS["modular-addition"]
    torch.manual_seed(0)
    model = task.seeded_model(0)
    options = METHODS[method].options(facts(task.name, method, task.base), {"lr": 1e-3})
    stepper = METHODS[method].build(model, options, 0)
    x, y = (part[:16] for part in task.load().train)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):  # SOAP's first step only looks
        loss = stepper.step(lambda x, y: task.loss(model(x), y), x, y)
        assert loss.isfinite()
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert all(moved)
