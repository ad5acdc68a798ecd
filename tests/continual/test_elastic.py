"""Elastic consolidation against sums over tasks written out, and against Bayes' rule."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from cases import WHOLE
from continual.truths import batch, exact, flat, losses_of, network
from f3eo import F3EO, Fixed, Gaussian, Sign
from f3eo.continual import Elastic, Exact, FromSteps, Importance, PathIntegral, Rehearsal, Reservoir


class Given(Importance):
    """Importances that a test gives, one list of tensors a task."""

    def __init__(self, tasks) -> None:
        self.tasks = list(tasks)

    def measure(self, model, closure, data):
        own = list(model.parameters() if isinstance(model, nn.Module) else model)
        return dict(zip(own, self.tasks.pop(0), strict=False))


def tasks_of(model, count: int, elastic: Elastic):
    """Ω_k and θ*_k of tasks that end at random parameters."""
    torch.manual_seed(5)
    anchors = []
    for _ in range(count):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        anchors.append([p.detach().clone() for p in model.parameters()])
        elastic.consolidate(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    return anchors


def random_importances(model, count: int):
    torch.manual_seed(7)
    tasks = [[torch.rand_like(p) for p in model.parameters()] for _ in range(count)]
    tasks[1][0].zero_()  # one that no task needs at times
    return tasks


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_penalty_and_its_gradient_are_the_sum_over_all_tasks(count):
    model = network()
    tasks = random_importances(model, 4)
    elastic = Elastic(Given(tasks), 3.0)
    anchors = tasks_of(model, count, elastic)
    own = list(model.parameters())
    truth = 1.5 * sum(
        (w * (p - a).square()).sum()
        for weights, anchor in zip(tasks, anchors, strict=False)
        for w, a, p in zip(weights, anchor, own, strict=True)
    )
    found = elastic.penalty(model.parameters())
    assert float(found.detach()) == pytest.approx(float(truth.detach()), rel=1e-13)
    for a, b in zip(torch.autograd.grad(found, own), torch.autograd.grad(truth, own), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decay", [None, 0.6])
def test_a_limit_holds_for_the_curvature_of_every_parameter(decay):
    """½ Σ_p min(λ Ω_p, c) (θ_p − θ̄_p)² and what is left at θ̄: the value of the sum there."""
    model = network()
    elastic = Elastic(Given(random_importances(model, 3)), 3.0, decay=decay)
    tasks_of(model, 3, elastic)
    own = list(model.parameters())
    whole = elastic.penalty(own)
    slopes = torch.autograd.grad(whole, own, create_graph=True)
    curvatures = [torch.autograd.grad(g.sum(), p)[0] for g, p in zip(slopes, own, strict=True)]
    moves = [g.detach() / c for g, c in zip(slopes, curvatures, strict=True)]
    rows = list(zip(curvatures, moves, strict=True))
    left = float(whole.detach()) - 0.5 * sum(float((c * m.square()).sum()) for c, m in rows)
    assert left == pytest.approx(0, abs=1e-9) if decay else left > 1
    limit = 3.0
    assert any((c < limit).any() for c in curvatures) and any((c > limit).any() for c in curvatures)
    found = elastic.penalty(own, limit=limit)
    truth = left + 0.5 * sum(float((c.clamp(max=limit) * m.square()).sum()) for c, m in rows)
    assert float(found.detach()) == pytest.approx(truth, rel=1e-12)
    for g, (c, m) in zip(torch.autograd.grad(found, own), rows, strict=True):
        assert torch.allclose(g, c.clamp(max=limit) * m, rtol=1e-11, atol=1e-13)
    assert torch.equal(elastic.penalty(own, limit=1e9), whole)
    with pytest.raises(ValueError, match=r"limit .*received 0"):
        elastic.penalty(own, limit=0.0)


def test_with_a_decay_it_is_the_recursion_of_online_ewc():
    model = network()
    tasks = random_importances(model, 4)
    elastic = Elastic(Given(tasks), 3.0, decay=0.6)
    anchors = tasks_of(model, 3, elastic)
    truth, own = 0.0, list(model.parameters())
    for n, p in enumerate(own):
        weight = torch.zeros_like(p)
        for k in range(3):
            weight = 0.6 * weight + tasks[k][n]
        truth = truth + 1.5 * (weight * (p - anchors[-1][n]).square()).sum()
    found = elastic.penalty(own)
    assert float(found.detach()) == pytest.approx(float(truth.detach()), rel=1e-13)


@pytest.mark.parametrize("base", [SGD, AdamW])
def test_a_step_descends_loss_and_penalty_as_a_plain_loop_does(base):
    models = network(), network()
    for model in models:
        elastic = Elastic(Given(random_importances(model, 2)), 3.0)
        tasks_of(model, 2, elastic)
        if model is models[0]:
            optimizer = F3EO(model, base, lr=0.1, strength=Fixed(0.0), past=elastic)
            for seed in range(3):
                optimizer.step(losses_of(model), *batch(5, seed))
        else:
            plain = base(model.parameters(), lr=0.1)
            for seed in range(3):
                plain.zero_grad()
                loss = losses_of(model)(*batch(5, seed)).mean()
                (loss + elastic.penalty(model.parameters())).backward()
                plain.step()
    a, b = (flat(m.parameters()) for m in models)
    assert torch.allclose(a, b, rtol=1e-11)


def test_a_step_of_any_strength_takes_a_parameter_back_to_its_anchor_and_not_beyond():
    model = network()
    importances = random_importances(model, 2)[:1]
    elastic = Elastic(Given(importances), 100.0)
    elastic.consolidate(model)
    anchors = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    away = [p.detach() - a for p, a in zip(model.parameters(), anchors, strict=True)]
    losses = losses_of(model)
    optimizer = F3EO(model, SGD, lr=0.1, strength=Fixed(0.0), past=elastic)
    optimizer.step(lambda x, y: 0 * losses(x, y), *batch(5, 0))
    rows = zip(model.parameters(), anchors, away, importances[0], strict=True)
    for p, anchor, distance, importance in rows:
        left = (1 - 0.1 * 100.0 * importance).clamp(min=0)
        assert torch.allclose(p.detach(), anchor + left * distance, rtol=1e-12)
    assert any(bool((100.0 * w * 0.1 > 2).any()) for w in importances[0])


def test_where_the_group_maximizes_the_penalty_is_still_descended():
    models = network(), network()
    for model, sign in zip(models, (1, -1), strict=True):
        elastic = Elastic(Given(random_importances(model, 2)), 3.0)
        tasks_of(model, 2, elastic)
        losses = losses_of(model)
        optimizer = F3EO(model, SGD, lr=0.1, maximize=sign < 0, strength=Fixed(0.0), past=elastic)
        optimizer.step(lambda x, y, f=losses, s=sign: s * f(x, y), *batch(5, 0))
    assert torch.allclose(*(flat(m.parameters()) for m in models), rtol=1e-12)


def test_with_the_exact_fisher_of_all_data_it_is_bayes_rule_for_a_linear_gaussian_model():
    # Orthogonal columns: the Fisher matrix of each task is diagonal, and Laplace is exact. With the
    # strength N, the sample count, the minimum of task 2 with the penalty is the posterior's mean.
    torch.manual_seed(0)
    n, d, std = 32, 4, 0.7

    def task():
        q, _ = torch.linalg.qr(torch.randn(n, d, dtype=torch.float64))
        x = q * torch.rand(d, dtype=torch.float64).add(0.5) * n**0.5
        return x, torch.randn(n, 1, dtype=torch.float64)

    (x1, y1), (x2, y2) = task(), task()
    model = nn.Linear(d, 1, bias=False).double()

    def closure(x, y):
        return Gaussian(model(x), y, std)

    # Posterior of task 1 under a flat prior, and of task 2 with that as its prior.
    p1, p2 = x1.T @ x1 / std**2, x2.T @ x2 / std**2
    mean1 = torch.linalg.solve(p1, x1.T @ y1 / std**2)
    mean12 = torch.linalg.solve(p1 + p2, p1 @ mean1 + x2.T @ y2 / std**2)
    with torch.no_grad():
        model.weight.copy_(mean1.T)
    elastic = Elastic(Exact("exact"), strength=1.0)
    elastic.consolidate(model, closure, [(x1[:20], y1[:20]), (x1[20:], y1[20:])])
    assert torch.allclose(elastic._weights[model.weight] * n, p1.diagonal()[None], rtol=1e-12)
    # (1/N) of the negative log-posterior: L₂ + ½ Σ Ω (θ − θ*)², minimised exactly by Newton's step.
    loss = closure(x2, y2).losses().mean() + elastic.penalty(model.parameters())
    (g,) = torch.autograd.grad(loss, [model.weight])
    with torch.no_grad():
        model.weight.sub_((torch.linalg.solve((p1 + p2) / n, g.T)).T)
    assert torch.allclose(model.weight.T, mean12, rtol=1e-11)


def test_the_structure_term_stays_off_loss_and_penalty():
    model = network()
    elastic = Elastic(Given(random_importances(model, 2)), 3.0)
    tasks_of(model, 2, elastic)
    records = []
    optimizer = F3EO(
        model, SGD, lr=0.1, estimator=exact(), strength=Fixed(0.5), past=elastic, **WHOLE
    )
    optimizer.observe(lambda r: records.append(copy.deepcopy(r)))
    own = losses_of(model)(*batch(5, 0)).mean() + elastic.penalty(model.parameters())
    g, start = flat(torch.autograd.grad(own, list(model.parameters()))), flat(model.parameters())
    optimizer.step(losses_of(model), *batch(5, 0))
    assert torch.allclose(flat(records[0].gradient), g, rtol=1e-11, atol=1e-14)
    d = (start - flat(model.parameters())) / 0.1 - g
    assert d.norm() > 1e-3 and abs(torch.dot(d, g)) <= 1e-11 * d.norm() * g.norm()


def test_several_parts_join_one_after_the_other():
    model, plain = network(), network()
    elastic = Elastic(Given([[torch.ones_like(p) for p in model.parameters()]]), 2.0)
    elastic.consolidate(model)
    with torch.no_grad():
        for p in (*model.parameters(), *plain.parameters()):
            p.mul_(1.5)
    memory = Reservoir(4)
    memory.add(*batch(4, 2))
    optimizer = F3EO(model, SGD, lr=0.1, strength=Fixed(0.0), past=[Rehearsal(memory), elastic])
    optimizer.step(losses_of(model), *batch(6, 1))
    sums = [losses_of(plain)(*batch(*b)).mean() for b in ((6, 1), (4, 2))]
    anchors = [p.detach() / 1.5 for p in plain.parameters()]
    pairs = zip(plain.parameters(), anchors, strict=True)
    loss = sum(sums) + sum((p - a).square().sum() for p, a in pairs)
    g = torch.autograd.grad(loss, list(plain.parameters()))
    truth = flat(plain.parameters()) - 0.1 * flat(g)
    assert torch.allclose(flat(model.parameters()), truth, rtol=1e-12)


def test_parameters_that_are_new_since_a_task_ended_are_free():
    model = network()
    elastic = Elastic(Given([[torch.ones_like(p) for p in model.parameters()]]), 2.0)
    elastic.consolidate(model)
    head = nn.Parameter(torch.ones(3, dtype=torch.float64))
    assert float(elastic.penalty([*model.parameters(), head]).detach()) == 0


def test_before_the_first_task_ends_it_adds_nothing():
    models = network(), network()
    for model, past in zip(models, (Elastic(Exact(), 5.0), ()), strict=True):
        F3EO(model, SGD, lr=0.1, past=past, **WHOLE).step(losses_of(model), *batch(5, 0))
    assert torch.equal(*(flat(m.parameters()) for m in models))
    assert float(Elastic(Exact(), 5.0).penalty(models[0].parameters()).detach()) == 0


def test_what_does_not_fit_is_refused_with_the_cure():
    model = network()
    with pytest.raises(
        TypeError, match=r"Exact\(\), FromSteps\(\) or PathIntegral\(\), received 3"
    ):
        Elastic(3, 1.0)  # pyright: ignore
    with pytest.raises(ValueError, match="strength must be > 0, received -1"):
        Elastic(Exact(), -1)
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\], received 1.5"):
        Elastic(Exact(), 1, decay=1.5)
    with pytest.raises(ValueError, match=r"consolidate\(closure, data\)"):
        F3EO(model, SGD, lr=0.1, past=Elastic(Exact(), 1.0)).consolidate()
    with pytest.raises(ValueError, match="strength above 0 and at least `every` steps"):
        Elastic(FromSteps(), 1.0).consolidate(model)
    with pytest.raises(ValueError, match=r"call part\.observe\(parameters\) before every step"):
        Elastic(PathIntegral(), 1.0).consolidate(model)
    with pytest.raises(ValueError, match=r"use PerSample\(\), or the importance Exact\(\)"):
        F3EO(model, SGD, lr=0.1, estimator=Sign(), past=Elastic(FromSteps(), 1.0))
    elastic = Elastic(Given([[torch.ones_like(p) for p in model.parameters()]]), 2.0)
    elastic.consolidate(model)
    with pytest.raises(ValueError, match=r"none of these 4 parameters.*deepcopy"):
        elastic.penalty(network().parameters())


def test_a_copy_of_both_belongs_together():
    model = network()
    elastic = Elastic(Given([[torch.ones_like(p) for p in model.parameters()]]), 2.0)
    elastic.consolidate(model)
    model, elastic = copy.deepcopy((model, elastic))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert float(elastic.penalty(model.parameters()).detach()) == pytest.approx(20.0)
