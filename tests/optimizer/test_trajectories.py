"""Whole trajectories: closed forms on a quadratic, the source's listing, golden numbers."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import vector_to_parameters
from torch.optim import SGD, Adam

from cases import WHOLE
from dense import relative, truth
from f3eo import (
    F3EO,
    Cap,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fitted,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
    Warmup,
)
from f3eo.extend import DecoupledPerTensor, Direct
from optimizer.helpers import batches, network, weights

A = torch.tensor(
    [[2.0, 0.3, -0.1, 0.4], [0.3, 1.0, 0.2, 0.0], [-0.1, 0.2, 0.5, 0.1], [0.4, 0.0, 0.1, 1.5]],
    dtype=torch.float64,
)
C = torch.tensor([[1.0, -1, 0, 2], [0.5, 2, 1, 0], [-1, 0, 0.5, 1]], dtype=torch.float64)
LR = 0.1


class Quadratic(nn.Module):
    """ℓ_i = ½(θ − c_i)ᵀ A (θ − c_i): g = A(θ − c̄), h = A²(θ − c̄), Tr F = mean ‖A(θ − c_i)‖²."""

    def __init__(self):
        super().__init__()
        start = torch.tensor([3.0, -2, 1, -1], dtype=torch.float64)
        self.first, self.last = nn.Parameter(start[:1].clone()), nn.Parameter(start[1:].clone())

    def forward(self, c):
        x = torch.cat([self.first, self.last]) - c
        return 0.5 * (x * (x @ A)).sum(-1)


PARTS = {"together": [slice(0, 4)], "per tensor": [slice(0, 1), slice(1, 4)]}
RULES = {
    "direct": (Direct, None, 0.0),
    "coupled": (Coupled, None, 1.0),
    "decoupled": (Decoupled, "together", 1.0),
    "per tensor": (DecoupledPerTensor, "per tensor", 1.0),
}
STRENGTHS = {
    "fixed": (Fixed(0.3), lambda g, d, trace: 0.3),
    "ratio": (Ratio(0.6), lambda g, d, trace: 0.6 * g / d),
    "cap, open": (Cap(0.2, limit=9.0), lambda g, d, trace: 0.2 / trace.sqrt()),
    "cap, shut": (Cap(500.0, limit=0.4), lambda g, d, trace: 0.4 * g / d),
}


def formula(steps, parts, share, weigh):
    """θ ← θ − lr (share·g + λ d), d = h less its part along g in each of `parts`.

    A cap is a distance, its h that of √Tr F.
    """
    theta, path = weights(Quadratic()), []
    for _ in range(steps):
        g = A @ (theta - C.mean(0))
        h = A @ g
        trace = ((theta - C) @ A).square().sum(1).mean()
        d = h.clone()
        for part in PARTS.get(parts, []):
            d[part] -= (h[part] @ g[part]) / (g[part] @ g[part]) * g[part]
        theta = theta - LR * (share * g + weigh(g.norm(), d.norm(), trace) * d)
        path.append(theta)
    return torch.stack(path)


def trajectory(steps, **options):
    model = Quadratic()
    optimizer = F3EO(
        model, SGD, lr=LR, **WHOLE | {"estimator": PerSample(DoubleBackward(), power=2)} | options
    )
    path = []
    for _ in range(steps):
        optimizer.step(model, C)
        path.append(weights(model))
    return torch.stack(path), optimizer


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_and_strength_follows_its_formula_on_a_quadratic(rule, strength):
    make, parts, share = RULES[rule]
    strength, weigh = STRENGTHS[strength]
    found, _ = trajectory(12, rule=make(), strength=strength)
    assert relative(found, formula(12, parts, share, weigh)) < 1e-12


@pytest.mark.parametrize(
    "estimator",
    [MiniBatch(), MiniBatch(FiniteDifference(central=True))],
    ids=["exact", "differences"],
)
def test_on_a_quadratic_the_batch_has_the_same_structure_gradient(estimator):
    found, optimizer = trajectory(12, rule=Coupled(), strength=Fixed(0.3), estimator=estimator)
    expected, exact = trajectory(12, rule=Coupled(), strength=Fixed(0.3))
    assert relative(found, expected) < 1e-8
    assert optimizer.trace < 0.9 * exact.trace  # but not the same trace


@pytest.mark.parametrize(("rule", "share"), [(Direct(), 0.0), (Coupled(), 1.0)])
def test_fixed_strengths_contract_by_a_matrix_power(rule, share):
    """θ_t − c̄ = (I − lr (share·A + λA²))ᵗ (θ_0 − c̄)."""
    found, _ = trajectory(20, rule=rule, strength=Fixed(0.3))
    centre = C.mean(0)
    matrix = torch.eye(4, dtype=A.dtype) - LR * (share * A + 0.3 * A @ A)
    start = weights(Quadratic()) - centre
    expected = centre + torch.linalg.matrix_power(matrix, 20) @ start
    assert relative(found[-1], expected) < 1e-12


def test_the_trace_is_that_of_the_quadratic():
    _, optimizer = trajectory(1)
    start = weights(Quadratic())
    expected = ((start - C) @ A).square().sum(1).mean()
    assert float(optimizer.trace) == pytest.approx(float(expected), rel=1e-14)


LISTING = """
# 1. 计算主损失 L(θ)
loss = criterion(network(inputs), targets)

# 2. 第一次反向传播: 计算 g = ∇θ L(θ)，并保留计算图
g = torch.autograd.grad(loss, network.parameters(), create_graph=True)

# 3. 计算元目标 L_meta = ||g||² = gᵀg
# 这在计算上等价于 g 和 g.detach() 的点积
L_meta = sum(p.pow(2).sum() for p in g)

# 4. 第二次反向传播: 计算 ∇θ L_meta = ∇θ(gᵀg) = 2 * H · g
# autograd 自动应用链式法则，得到 Hessian-vector product
# 因子 2 是一个常数缩放，会被优化器学习率吸收
meta_grad = torch.autograd.grad(L_meta, network.parameters())

# 5. 应用梯度 (在优化器 step 方法中实现)
with torch.no_grad():
    for p, mg in zip(network.parameters(), meta_grad):
        p.grad = mg # 直接使用 H·g (带缩放) 作为梯度
optimizer.step()
"""
"""The source document's section "Matrix-Free HVP 计算：双反向传播", verbatim."""


@pytest.mark.parametrize(
    ("base", "options"), [(SGD, {"lr": 0.5, "momentum": 0.9}), (Adam, {"lr": 0.01})]
)
def test_the_direct_rule_is_the_listing_of_the_source_document(base, options):
    ours, theirs = network().model, network().model
    criterion = nn.CrossEntropyLoss(reduction="none")
    optimizer = F3EO(
        ours, base, estimator=MiniBatch(), rule=Direct(), strength=Fixed(2.0), **WHOLE | options
    )
    names = {
        "torch": torch,
        "network": theirs,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": base(theirs.parameters(), **options),
    }
    before = weights(ours)
    for x, y in batches(10):
        optimizer.step(lambda x, y: criterion(ours(x), y), x, y)
        exec(LISTING, names | {"inputs": x, "targets": y})
        assert relative(weights(ours), weights(theirs)) < 1e-12
    assert relative(weights(ours), before) > 1e-2


def test_one_sample_makes_the_batch_the_fisher_trace():
    """The source document's estimate is exact for B = 1, and only there."""
    found = {}
    for size in (1, 6):
        for estimator in (MiniBatch(), PerSample(DoubleBackward(), power=2)):
            case = network()
            optimizer = F3EO(
                case.model, SGD, lr=0.1, estimator=estimator, strength=Ratio(0.3), **WHOLE
            )
            for batch in batches(3, size):
                optimizer.step(case.losses, *batch)
            found[size, type(estimator)] = weights(case.model)
    assert relative(found[1, MiniBatch], found[1, PerSample]) < 1e-12
    assert relative(found[6, MiniBatch], found[6, PerSample]) > 1e-3


def golden_network():
    """Weights and data without random numbers."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            steps = torch.arange(p.numel(), dtype=p.dtype).view_as(p)
            p.copy_(torch.sin(1.7 * steps + k))
    x = torch.cos(0.9 * torch.arange(28, dtype=torch.float64)).view(7, 4)
    return model, (x, torch.tensor([0, 2, 1, 1, 0, 2, 2]))


GOLDEN = {
    "defaults, SGD": (SGD, {"lr": 0.1, "momentum": 0.9}, {}),
    "defaults, Adam": (Adam, {"lr": 0.01}, {}),
    "per tensor, fixed": (SGD, {"lr": 0.1}, {"rule": DecoupledPerTensor(), "strength": Fixed(0.5)}),
    "coupled, capped, every 2": (
        Adam,
        {"lr": 0.01},
        {"rule": Coupled(), "strength": Cap(1.0, 0.5, Warmup(3)), "every": 2},
    ),
}
NUMBERS = {  # losses of five steps, then Tr F at the last, sum and norm of the weights after it
    "defaults, SGD": [
        *(1.6919568217019727, 1.6182709344430137, 1.4892583199963325, 1.3295500088656949),
        *(1.1652098020340158, 3.8540087847894453, -0.5933298072066684, 4.475952084486523),
    ],
    "defaults, Adam": [
        *(1.6919568217019727, 1.6499086444978315, 1.604621483414505, 1.560845255918015),
        *(1.518633427458424, 4.87113688118468, 0.7904440855402839, 4.52765802569686),
    ],
    "per tensor, fixed": [
        *(1.6919568217019723, 1.6204107342584388, 1.556237591935604, 1.4978659857660719),
        *(1.4442157528344306, 4.34849604943284, 0.8274153606357781, 4.512836239467615),
    ],
    "coupled, capped, every 2": [
        *(1.6919568217019723, 1.6654365094579708, 1.616044630144216, 1.570031089332169),
        *(1.5273571265925483, 4.28985455439706, 2.4561702741207507, 4.638960983124291),
    ],
}


def test_the_defaults_are_these():
    optimizer = F3EO(nn.Linear(2, 2), SGD, lr=0.1)
    assert type(optimizer.estimator) is PerSample and optimizer.estimator.power == 1
    assert type(optimizer.estimator.engine) is FiniteDifference
    assert type(optimizer.rule) is Decoupled
    assert repr(optimizer.strength) == "Fitted(0.04)" and optimizer.strength.limit == 1
    assert (optimizer.fraction, optimizer.every) == (None, 5)


PARTS_NAMED = {
    "estimator": [PerSample(), Compiled(PerSample()), Compiled(backend=None)],
    "rule": [Decoupled()],
    "strength": [Fitted(0.04)],
    "fraction": [0.25],
    "every": [5],
}


@pytest.mark.parametrize(("part", "value"), [(k, v) for k, vs in PARTS_NAMED.items() for v in vs])
def test_naming_a_part_that_is_the_default_changes_nothing(part, value):
    """`Compiled` is the same method to rounding: nothing of it is compiled in the first steps."""
    found = []
    for given in ({}, {part: value}):
        row = network()
        row.model.float()
        generator = torch.Generator().manual_seed(3)
        optimizer = F3EO(row.model, SGD, lr=0.1, generator=generator, **given)
        for x, y in batches(7, 16, torch.float32):
            optimizer.step(row.losses, x, y)
        found.append(weights(row.model))
    assert relative(found[1], found[0]) < 1e-6


@pytest.mark.parametrize("estimator", [PerSample(power=2), Sign(), MiniBatch(), ModelSampled()])
def test_naming_an_estimator_changes_no_other_part(estimator):
    optimizer = F3EO(nn.Linear(2, 2), SGD, lr=0.1, estimator=estimator)
    assert repr(optimizer.strength) == "Fitted(0.04)" and type(optimizer.rule) is Decoupled
    assert (optimizer.fraction, optimizer.every) == (None, 5)


@pytest.mark.parametrize(
    ("engine", "tolerance"),
    [(DoubleBackward(), 1e-9), (FiniteDifference(), 1e-6)],
    ids=["exact", "default"],
)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_trajectory(name, engine, tolerance):
    """The method as released: whoever changes these numbers changes the method, and says so.

    The numbers are those of the exact h, which the default engine follows within its error.
    """
    base, options, ours = GOLDEN[name]
    estimator = PerSample(engine, power=1 if "defaults" in name else 2)
    model, batch = golden_network()
    criterion = nn.CrossEntropyLoss(reduction="none")
    optimizer = F3EO(model, base, estimator=estimator, **options, **WHOLE | ours)
    found = [float(optimizer.step(lambda x, y: criterion(model(x), y), *batch)) for _ in range(5)]
    found += [float(optimizer.trace), float(weights(model).sum()), float(weights(model).norm())]
    assert found == pytest.approx(NUMBERS[name], rel=tolerance)


@pytest.mark.parametrize("name", ["defaults, SGD", "defaults, Adam"])
def test_the_golden_numbers_are_those_of_the_formulas(name):
    """The method written out once more, on one long vector, with g and h from the dense truth."""
    model, batch = golden_network()
    criterion = nn.CrossEntropyLoss(reduction="none")
    theta = weights(model)
    mean, square, found = torch.zeros_like(theta), torch.zeros_like(theta), []
    for t in range(1, 6):
        vector_to_parameters(theta, model.parameters())
        here = truth(model, lambda x, y: criterion(model(x), y), *batch, power=1)
        found.append(float(here.losses.mean()))
        g, h = here.gradient, here.structure
        square = 0.999 * square + 0.001 * g**2
        metric = 1 / ((square / (1 - 0.999**t)).sqrt() + 1e-8) if "Adam" in name else 1.0
        d = h - (h @ (metric * g)) / (g @ (metric * g)) * g
        value = 0.04 * math.exp(-found[-1])
        d = min(value, ((g @ (metric * g)) / (d @ (metric * d))).sqrt()) * d
        if "Adam" in name:
            mean = 0.9 * mean + 0.1 * g
            theta = theta - 0.01 * metric * (mean / (1 - 0.9**t) + d)
        else:
            mean = 0.9 * mean + g + d
            theta = theta - 0.1 * mean
    found += [float(here.trace), float(theta.sum()), float(theta.norm())]
    assert found == pytest.approx(NUMBERS[name], rel=1e-9)
