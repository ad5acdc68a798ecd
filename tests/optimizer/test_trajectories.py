"""Whole trajectories: closed forms on a quadratic, the source's listing, golden numbers."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from cases import WHOLE
from dense import relative
from f3eo import (
    F3EO,
    Cap,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    MiniBatch,
    PerSample,
    Ratio,
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
