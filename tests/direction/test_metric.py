"""D of every base in the table, against what the base itself does."""

import copy
import math

import pytest
import torch
from schedulefree import AdamWScheduleFree, SGDScheduleFree
from torch import optim as o

from f3eo import F3EO, Cap
from f3eo.direction import is_diagonal, is_known, metric
from f3eo.direction.metric import METRICS
from f3eo.extend import register_metric


def adam_mean(state, group, g):
    return state["exp_avg"] / (1 - group["betas"][0] ** float(state["step"]))


def nadam_mean(state, group, g):
    """Dozat's mixture of the gradient and of its mean, each with its own correction."""
    t, beta, psi = float(state["step"]), group["betas"][0], group["momentum_decay"]
    mu, following = (beta * (1 - 0.5 * 0.96 ** (k * psi)) for k in (t, t + 1))
    product = float(state["mu_product"])
    return (1 - mu) / (1 - product) * g + following / (1 - product * following) * state["exp_avg"]


def gradient(state, group, g):
    return g


BASES = {  # class, options, m̂: a base moves by −lr D m̂
    "adam": (o.Adam, {}, adam_mean),
    "adam, betas": (o.Adam, {"betas": (0.5, 0.7), "eps": 1e-2}, adam_mean),
    "adam, tensor lr": (o.Adam, {"lr": torch.tensor(0.01, dtype=torch.float64)}, adam_mean),
    "adam, foreach": (o.Adam, {"foreach": True}, adam_mean),
    "adam, fused": (o.Adam, {"fused": True}, adam_mean),
    "amsgrad": (o.Adam, {"amsgrad": True, "betas": (0.5, 0.5)}, adam_mean),
    "adamw": (o.AdamW, {"weight_decay": 0.0}, adam_mean),
    "amsgradw": (o.AdamW, {"weight_decay": 0.0, "amsgrad": True}, adam_mean),
    "nadam": (o.NAdam, {"betas": (0.8, 0.9)}, nadam_mean),
    "radam": (o.RAdam, {"betas": (0.8, 0.9)}, adam_mean),
    "radam, eps": (o.RAdam, {"betas": (0.8, 0.99), "eps": 1e-3}, adam_mean),
    "adamax": (o.Adamax, {"eps": 1e-3}, adam_mean),
    "rmsprop": (o.RMSprop, {"alpha": 0.8, "eps": 1e-3}, gradient),
    "rmsprop, centred": (o.RMSprop, {"alpha": 0.8, "centered": True}, gradient),
    "adagrad": (o.Adagrad, {"lr_decay": 0.3, "eps": 1e-3}, gradient),
    "adagrad, start": (o.Adagrad, {"initial_accumulator_value": 0.5}, gradient),
}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 2), (4,), ())
    ]


def steps(base, params, count, seed=1):
    """Gradients that grow and shrink, so that maxima and bias corrections matter."""
    generator = torch.Generator().manual_seed(seed)
    for k in range(count):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 3.0 ** (-(k % 3))
        before = [p.detach().clone() for p in params]
        base.step()
        yield before


@pytest.mark.parametrize("name", BASES)
def test_the_base_moves_by_its_learning_rate_times_metric_times_mean(name):
    """From the first step on, through RAdam's start without rectification (ρ ≤ 5) and after it."""
    kind, options, mean = BASES[name]
    params = parameters()
    base = kind(params, **({"lr": 0.01} | options))
    group = base.param_groups[0]
    for before in steps(base, params, 12):
        diagonal = metric(base, params)
        for p, old, d in zip(params, before, diagonal, strict=True):
            assert d.shape == p.shape and not d.requires_grad
            move = -float(group["lr"]) * d * mean(base.state[p], group, p.grad)
            torch.testing.assert_close(p.detach() - old, move, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", [n for n in BASES if BASES[n][2] is adam_mean])
def test_the_metric_is_the_slope_of_the_update_in_the_first_moment(name):
    """∂Δθ/∂m at fixed v, by differences: −lr β₁/(1 − β₁ᵗ) D."""
    kind, options, _ = BASES[name]
    params = parameters()
    base = kind(params, **({"lr": 0.01} | options))
    for _ in steps(base, params, 7):
        pass
    ends = []
    for nudge in (1e-3, -1e-3):
        twins = [p.detach().clone() for p in params]
        twin = kind(twins, **({"lr": 0.01} | options))
        twin.load_state_dict(copy.deepcopy(base.state_dict()))
        for p in twins:
            twin.state[p]["exp_avg"] += nudge
        for _ in steps(twin, twins, 1, seed=5):
            pass
        ends.append([p.detach() for p in twins])
    beta = twin.param_groups[0]["betas"][0]
    factor = -0.01 * beta / (1 - beta**8)
    for high, low, d in zip(*ends, metric(twin, twins), strict=True):
        torch.testing.assert_close((high - low) / 2e-3, factor * d, rtol=1e-6, atol=1e-9)


def test_radam_is_the_identity_until_its_variance_is_defined():
    params = parameters()
    base = o.RAdam(params, lr=0.01, betas=(0.9, 0.999))
    seen = []
    for _ in steps(base, params, 8):
        seen.append(all(bool((d == 1).all()) for d in metric(base, params)))
    assert seen == [True] * 5 + [False] * 3


def test_a_parameter_that_never_had_a_gradient_does_not_move():
    params = parameters()
    base = o.Adam(params, lr=0.01)
    params[0].grad = torch.ones_like(params[0])
    base.step()
    found = metric(base, params)
    assert found[0].all() and not found[1].any() and not found[2].any()


def test_groups_have_constants_of_their_own():
    params = parameters()[:2]
    groups = [{"params": params[:1], "eps": 1.0}, {"params": params[1:], "betas": (0.9, 0.5)}]
    base = o.Adam(groups, lr=0.01)
    for p in params:
        p.grad = torch.full_like(p, 2.0)
    base.step()
    first, second = metric(base, params)
    assert float(first.max()) == pytest.approx(1 / 3)
    assert float(second.max()) == pytest.approx(1 / (2 + 1e-8))


def test_sgd_is_the_identity_and_others_are_not_known():
    params = parameters()[:2]
    assert metric(o.SGD(params, lr=0.1), params) is None
    for kind, known, diagonal in (
        (o.SGD, True, False),
        (o.Adam, True, True),
        (o.Adadelta, False, False),
        (o.Rprop, False, False),
        (o.ASGD, False, False),
    ):
        base = kind(params)
        assert (is_known(base), is_diagonal(base)) == (known, diagonal)


def test_a_subclass_may_differ_and_is_not_known():
    class Mine(o.Adam):
        pass

    assert not is_known(Mine(parameters()))


def test_a_metric_can_be_registered():
    """A base that divides by a constant: the structure term follows it, and no warning comes."""

    class Halved(o.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["seen"] = True
                    p.sub_(group["lr"] * p.grad / 2)

    try:

        @register_metric(Halved)
        def halved(state, group):
            return torch.tensor(0.5, dtype=torch.float64)

        assert METRICS[Halved] is halved
        x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
        ends = []
        for kind, lr in ((Halved, 0.2), (o.SGD, 0.1)):
            theta = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
            optimizer = F3EO([theta], kind, lr=lr, strength=Cap(0.04), fraction=1, every=1)
            optimizer.step(lambda x, theta=theta: (x * theta.exp()).sum(1).square(), x)
            ends.append(theta.detach())
        torch.testing.assert_close(*ends, rtol=1e-12, atol=0)
    finally:
        METRICS.pop(Halved, None)


def test_the_rectification_of_radam_is_that_of_the_paper():
    """Liu et al. 2020 (1908.03265), algorithm 2."""
    params = parameters()[2:]
    base = o.RAdam(params, lr=0.01, betas=(0.9, 0.9), eps=0.0)
    for _ in steps(base, params, 9):
        pass
    longest = 2 / (1 - 0.9) - 1
    length = longest - 2 * 9 * 0.9**9 / (1 - 0.9**9)
    rectified = math.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    expected = rectified * math.sqrt(1 - 0.9**9) / base.state[params[0]]["exp_avg_sq"].sqrt()
    torch.testing.assert_close(metric(base, params)[0], expected)


def test_a_class_may_be_named_so_that_it_need_not_be_imported(monkeypatch):
    class Elsewhere(o.SGD):
        pass

    name = f"{Elsewhere.__module__}.{Elsewhere.__qualname__}"
    params = parameters()
    assert not is_known(Elsewhere(params))
    monkeypatch.setitem(METRICS, name, None)
    register_metric(name)(lambda state, group: torch.tensor(2.0))
    assert is_known(Elsewhere(params)) and is_diagonal(Elsewhere(params))
    assert not is_known(type("Elsewhere", (o.SGD,), {})(params))


def test_schedule_free_sgd_has_the_metric_of_sgd():
    base = SGDScheduleFree(parameters())
    assert is_known(base) and not is_diagonal(base)
    assert not is_known(AdamWScheduleFree(parameters()))
