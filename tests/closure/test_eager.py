"""Compiled and checkpointed parts of a model give the same results as eager ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dense import flat, relative, truth
from f3eo import F3EO, DoubleBackward, FiniteDifference, PerSample, Sign
from f3eo.closure.problem import Problem
from optimizer.reference import diagonal

ENGINES = [FiniteDifference(), DoubleBackward()]
pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|Deprecated).*")


def losses(forward):
    return lambda x, y: F.cross_entropy(forward(x), y, reduction="none")


def measured(model, closure, batch, estimator):
    parameters = list(model.parameters())
    problem = Problem(closure, batch, parameters, [True] * len(parameters), model)
    return estimator.gradients(problem)


def batch():
    return torch.randn(6, 8, dtype=torch.float64), torch.randint(3, (6,))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("part", ["model", "layer", "function", "method"])
def test_compiled_parts_are_measured_as_eager_ones(part, engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)).double()
    reference = losses(model.forward)
    forward = model
    if part == "model":
        forward = torch.compile(model, backend="eager")
    elif part == "layer":
        compiled = torch.compile(model[0], backend="eager")
        forward = lambda x: model[2](model[1](compiled(x)))  # noqa: E731
    elif part == "function":
        forward = torch.compile(lambda x: model(x), backend="eager")
    else:
        model.compile(backend="eager")
    estimator = PerSample(engine)
    for _ in range(3):
        xy = batch()
        expected = truth(list(model.parameters()), reference, *xy, power=1)
        found = measured(model, losses(forward), xy, estimator)
        assert relative(found.trace, expected.trace) < 1e-9
        assert relative(flat(found.structure), expected.structure) < 1e-5


def test_the_optimizer_takes_a_compiled_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    compiled = torch.compile(model, backend="eager")
    optimizer = F3EO(compiled, torch.optim.SGD, lr=0.1, fraction=1, every=1)
    xy, size = batch(), diagonal(model.parameters())
    plain = truth(list(model.parameters()), losses(model.forward), *xy)
    expected = (size * plain.gradients).square().sum(1).mean()
    optimizer.step(losses(compiled), *xy)
    assert relative(optimizer.trace, expected) < 1e-9


NORMS = {
    "LayerNorm": lambda: nn.LayerNorm(8),
    "RMSNorm": lambda: nn.RMSNorm(8),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 4)),
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        nn.Flatten(),
    ),
    "dropout": lambda: nn.Dropout(0.5),
}


@pytest.mark.parametrize("estimator", [PerSample, lambda: PerSample(DoubleBackward())])
@pytest.mark.parametrize("name", NORMS)
def test_checkpoints_give_the_results_without_them(name, estimator):
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        part = nn.Sequential(nn.Linear(8, 8), NORMS[name](), nn.Tanh())
        model = nn.ModuleList([nn.Linear(8, 8), part, nn.Linear(8, 3)]).double()

        def forward(x, m=model, again=again):
            x = m[0](x)
            return m[2](checkpoint(m[1], x, use_reentrant=False) if again else m[1](x))

        torch.manual_seed(1)
        xy = batch()
        result = measured(model, losses(forward), xy, estimator())
        found.append(torch.cat([result.trace[None], flat(result.structure)]))
    assert relative(*found) < 1e-5


@pytest.mark.parametrize("estimator", [Sign(), Sign(FiniteDifference())])
def test_checkpoints_with_random_signs(estimator):
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Tanh())
    model = nn.ModuleList([part, nn.Linear(8, 3)]).double()
    found = []
    for again in (False, True):

        def forward(x, again=again):
            return model[1](checkpoint(part, x, use_reentrant=False) if again else part(x))

        torch.manual_seed(1)
        parameters = list(model.parameters())
        generator = torch.Generator().manual_seed(3)
        problem = Problem(
            losses(forward), batch(), parameters, [True] * len(parameters), model, generator
        )
        found.append(flat(estimator.gradients(problem).structure))
    assert relative(*found) < 1e-5


def test_dropout_behind_attention_draws_the_same_masks_twice(caplog):
    """Masks are drawn in memory order, so a second pass must keep the memory layout."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True, norm_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(16, 3)).double().train()
    x, y = torch.randn(6, 2, 8, dtype=torch.float64), torch.randint(3, (6,))
    found = []
    for engine in ENGINES:
        torch.manual_seed(1)
        found.append(flat(measured(model, losses(model), (x, y), PerSample(engine)).structure))
    assert relative(*found) < 1e-5
    assert not caplog.records  # no fallback from finite differences
