"""Importances against loops over single samples and against formulas by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from cases import WHOLE
from continual.truths import batch, exact, flat, losses_of, network, samples_gradients
from f3eo import F3EO, Categorical, Compiled, DoubleBackward, Fixed, PerSample, Weighted
from f3eo.continual import Elastic, Exact, FromSteps, PathIntegral
from f3eo.instruments import diagonal


def weights_of(model, elastic: Elastic):
    return [elastic._weights[p] for p in model.parameters()]


@pytest.mark.parametrize("module", [True, False])
def test_exact_is_the_instruments_diagonal(module):
    model, data = network(), [batch(5, 0), batch(3, 1)]
    asked = model if module else list(model.parameters())
    elastic = Elastic(Exact(), 1.0)
    elastic.consolidate(asked, losses_of(model), data)
    truth = diagonal(model, losses_of(model), data)
    for found, value in zip(weights_of(model, elastic), truth.values(), strict=True):
        assert torch.equal(found, value)


def test_exact_with_labels_of_the_model_takes_its_generator():
    model, data = network(), [batch(5, 0)]

    def closure(x, y):
        return Categorical(model(x), y)

    part = Exact("drawn", torch.Generator().manual_seed(1))
    found = part.measure(model, closure, data)
    own = torch.Generator().manual_seed(1)
    truth = diagonal(model, closure, data, labels="drawn", generator=own)
    assert all(map(torch.equal, found.values(), truth.values()))
    with pytest.raises(ValueError, match="wrong"):
        Exact("wrong")


ESTIMATORS = {
    "differences": PerSample(),
    "double backward": exact(),
    "by row": PerSample(DoubleBackward(), hold_residuals=True),
    "compiled": Compiled(PerSample(DoubleBackward()), backend=None),
    "little memory": PerSample(memory=1000),
}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("options", [{}, {"chunk": 2}], ids=["whole", "chunks"])
@pytest.mark.filterwarnings("ignore:Compiled runs a step uncompiled")
def test_from_steps_is_the_mean_of_single_samples_squares_over_the_measured_steps(
    estimator, options
):
    model, elastic = network(), Elastic(FromSteps(), 1.0)
    optimizer = F3EO(
        model, SGD, lr=0.1, estimator=estimator, strength=Fixed(0.1), past=elastic,
        **WHOLE | {"every": 2} | options,
    )  # fmt: skip
    losses, squares = losses_of(model), []
    for seed in range(6):
        x, y = batch(5, seed)
        if seed % 2 == 0:
            squares.append(samples_gradients(model, x, y).detach().square().mean(0))
        optimizer.step(losses, x, y)
    optimizer.consolidate()
    truth = torch.stack(squares).mean(0)
    assert torch.allclose(flat(weights_of(model, elastic)), truth, rtol=1e-10, atol=1e-16)


def test_from_steps_on_a_part_of_the_batch_is_that_of_the_part():
    model, elastic = network(), Elastic(FromSteps(), 1.0)
    generator = torch.Generator().manual_seed(3)
    optimizer = F3EO(
        model, SGD, lr=0.1, estimator=exact(), strength=Fixed(0.1), past=elastic, every=1,
        fraction=0.5, generator=generator,
    )  # fmt: skip
    x, y = batch(6, 0)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))[:3]
    truth = samples_gradients(model, x[order], y[order]).detach().square().mean(0)
    optimizer.step(losses_of(model), x, y)
    optimizer.consolidate()
    assert torch.allclose(flat(weights_of(model, elastic)), truth, rtol=1e-10)


@pytest.mark.parametrize("estimator", [PerSample(), exact()], ids=["differences", "double"])
def test_from_steps_weights_samples_as_the_loss_does(estimator):
    model, elastic = network(), Elastic(FromSteps(), 1.0)
    x, y = batch(5, 0)
    w = torch.tensor([0.0, 1.0, 2.0, 0.5, 1.5]).double()
    truth = samples_gradients(model, x, y).detach().square()
    truth = (w[:, None] * truth).sum(0) / w.sum()
    optimizer = F3EO(
        model, SGD, lr=0.1, estimator=estimator, strength=Fixed(0.1), past=elastic, **WHOLE
    )
    optimizer.step(lambda x, y, w: Weighted(losses_of(model)(x, y), w), x, y, w)
    optimizer.consolidate()
    assert torch.allclose(flat(weights_of(model, elastic)), truth, rtol=1e-10, atol=1e-16)


class Sequence(nn.Module):
    """Embedding, a convolution and several positions: squares that have no closed form."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(7, 4)
        self.convolution = nn.Conv1d(4, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens):
        x = torch.tanh(self.convolution(self.embedding(tokens).mT))
        return self.head(x.mT)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("memory", [300, 2**28])
def test_from_steps_squares_gradients_of_layers_without_a_closed_form(memory, weighted):
    model = Sequence().double()
    tokens, y = torch.randint(0, 7, (4, 6)), torch.randint(0, 3, (4, 4))
    w = torch.rand(4, 4).double()

    def losses(tokens, y, w):
        each = F.cross_entropy(model(tokens).mT, y, reduction="none")
        return Weighted(each, w) if weighted else each

    truth = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for i in range(4):
        each = F.cross_entropy(model(tokens[i : i + 1]).mT, y[i : i + 1], reduction="none")
        own = (w[i] * each[0]).sum() / w[i].sum() if weighted else each.mean()
        share = w[i].sum() / w.sum() if weighted else 0.25
        g = torch.autograd.grad(own, list(model.parameters()))
        for name, value in zip(truth, g, strict=True):
            truth[name] += share * value.square()
    elastic = Elastic(FromSteps(), 1.0)
    estimator = PerSample(memory=memory)
    optimizer = F3EO(model, SGD, lr=0.1, estimator=estimator, past=elastic, **WHOLE)
    optimizer.step(losses, tokens, y, w)
    optimizer.consolidate()
    for found, value in zip(weights_of(model, elastic), truth.values(), strict=True):
        assert torch.allclose(found, value, rtol=1e-9, atol=1e-15)


def test_from_steps_begins_anew_after_a_task_and_leaves_out_what_takes_no_part():
    model = network()
    groups = [
        {"params": model[0].parameters(), "structure": False},
        {"params": model[2].parameters()},
    ]
    part = FromSteps()
    optimizer = F3EO(
        groups,
        SGD,
        lr=0.1,
        estimator=exact(),
        strength=Fixed(0.1),
        past=Elastic(part, 1.0),
        **WHOLE,
    )
    for seed in range(2):
        x, y = batch(5, seed)
        rows = samples_gradients(model, x, y).detach().square().mean(0)
        optimizer.step(losses_of(model), x, y)
        found = part.measure(model, None, None)
        assert set(found) == set(model[2].parameters())
        inside = sum(p.numel() for p in model[0].parameters())
        assert torch.allclose(flat(found.values()), rows[inside:], rtol=1e-10)


def test_no_squares_are_made_that_nobody_reads(monkeypatch):
    from f3eo.fisher.ghost.gradients import kept

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(kept, "squares", refuse)
    model = network()
    F3EO(model, SGD, lr=0.1, past=Elastic(Exact(), 1.0)).step(losses_of(model), *batch(5, 0))


def paths(model, steps: int, lr: float):
    """θ_t and g_t of a run of SGD with momentum on one batch."""
    x, y = batch(6, 1)
    speed = [torch.zeros_like(p) for p in model.parameters()]
    for _ in range(steps):
        g = torch.autograd.grad(losses_of(model)(x, y).mean(), list(model.parameters()))
        yield [p.detach().clone() for p in model.parameters()], list(g)
        with torch.no_grad():
            for p, v, own in zip(model.parameters(), speed, g, strict=True):
                p.sub_(v.mul_(0.9).add_(own), alpha=lr)


@pytest.mark.parametrize("loop", ["f3eo", "plain"])
def test_a_path_integral_is_its_formula_by_hand(loop):
    truth, model, part = network(), network(), PathIntegral(damping=0.05)
    steps = list(paths(truth, 5, 0.5))
    ends = [*(theta for theta, _ in steps[1:]), [p.detach() for p in truth.parameters()]]
    omegas = []
    for n in range(4):
        fall = -sum(g[n] * (end[n] - theta[n]) for (theta, g), end in zip(steps, ends, strict=True))
        moved = ends[-1][n] - steps[0][0][n]
        omegas.append(fall.clamp(min=0) / (moved.square() + 0.05))
    elastic = Elastic(part, 1.0, decay=1.0)
    x, y = batch(6, 1)
    base = SGD(model.parameters(), lr=0.5, momentum=0.9)
    optimizer = F3EO(model, base, strength=Fixed(0.0), past=elastic) if loop == "f3eo" else base
    for _ in range(5):
        if isinstance(optimizer, F3EO):
            optimizer.step(losses_of(model), x, y)
            continue
        optimizer.zero_grad()
        losses_of(model)(x, y).mean().backward()
        elastic.observe(model.parameters())
        optimizer.step()
    elastic.consolidate(model)
    for found, value in zip(weights_of(model, elastic), omegas, strict=True):
        assert torch.allclose(found, value, rtol=1e-10, atol=1e-16)


def test_a_parameter_that_moved_up_the_loss_has_no_importance():
    p, part = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]).double()), PathIntegral(damping=0.5)
    part.observe([p], [torch.tensor([1.0, -1.0, 0.0]).double()])
    with torch.no_grad():
        p.add_(torch.tensor([-0.5, -0.5, 1.0]))
    found = part.measure([p], None, None)[p]
    assert torch.allclose(found, torch.tensor([0.5 / 0.75, 0.0, 0.0]).double())


def test_its_sum_is_the_fall_of_the_loss_for_small_steps():
    model, part = network(), PathIntegral()
    x, y = batch(6, 1)
    optimizer = F3EO(model, SGD, lr=0.002, strength=Fixed(0.0), past=Elastic(part, 1.0))
    first = float(losses_of(model)(x, y).mean().detach())
    for _ in range(300):
        optimizer.step(losses_of(model), x, y)
    fall = first - float(losses_of(model)(x, y).mean().detach())
    assert fall > 0.1
    assert float(sum(v.sum() for v in part._contributions.values())) == pytest.approx(
        fall, rel=0.01
    )


def test_a_path_integral_counts_the_tasks_own_gradient_alone():
    # The penalty and a maximized group: both leave ω that of the loss, pointing uphill on it.
    model, other = network(), network()
    parts = PathIntegral(), PathIntegral()
    for m, part, sign in zip((model, other), parts, (1, -1), strict=True):
        elastic = Elastic(part, 4.0)
        optimizer = F3EO(m, SGD, lr=0.1, maximize=sign < 0, strength=Fixed(0.0), past=elastic)
        optimizer.step(lambda x, y, m=m, s=sign: s * losses_of(m)(x, y), *batch(5, 0))
        optimizer.consolidate()
        x, y = batch(5, 1)
        with torch.no_grad():
            for p in m.parameters():
                p.add_(0.1)
        start = flat(m.parameters())
        g = flat(torch.autograd.grad(losses_of(m)(x, y).mean(), list(m.parameters())))
        optimizer.step(lambda x, y, m=m, s=sign: s * losses_of(m)(x, y), x, y)
        omega = flat(part._contributions.values())
        assert torch.allclose(omega, -g * (flat(m.parameters()) - start), rtol=1e-10)


def test_a_step_that_is_skipped_counts_for_nothing():
    model, part = network(), PathIntegral()
    optimizer = F3EO(model, SGD, lr=0.1, strength=Fixed(0.0), past=Elastic(part, 1.0))
    x, y = batch(5, 0)
    with pytest.warns(UserWarning, match="is not finite"):
        optimizer.step(losses_of(model), x * float("nan"), y)
    optimizer.step(losses_of(model), x, y)
    assert all(v.isfinite().all() for v in part._contributions.values())
    assert flat(part._contributions.values()).sum() > 0


def test_a_damping_is_positive():
    with pytest.raises(ValueError, match="damping must be > 0, received 0"):
        PathIntegral(0)
