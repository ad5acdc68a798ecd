"""Golden numbers: the method as released, and the formulas that give them."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from cases import WHOLE
from f3eo import (
    F3EO,
    ByRow,
    Cap,
    Coupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    PerSample,
    Warmup,
)
from f3eo.extend import DecoupledPerTensor
from optimizer.helpers import weights
from optimizer.reference import DEFAULT, Method, adamw, run, sgd


def network():
    """Weights and data without random numbers."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            steps = torch.arange(p.numel(), dtype=p.dtype).view_as(p)
            p.copy_(torch.sin(1.7 * steps + k))
    x = torch.cos(0.9 * torch.arange(28, dtype=torch.float64)).view(7, 4)
    return model, (x, torch.tensor([0, 2, 1, 1, 0, 2, 2]))


MOMENTUM = {"lr": 0.1, "momentum": 0.9}
DEFAULTS = {"metric": ByRow(), "hold_residuals": True}
GOLDEN = {  # base, its options, those of the estimator and of F3EO
    "defaults, SGD": (SGD, MOMENTUM, DEFAULTS, {}),
    "defaults, Adam": (Adam, {"lr": 0.01}, DEFAULTS, {}),
    "defaults, every 2": (SGD, MOMENTUM, DEFAULTS, {"every": 2}),
    "Euclidean, SGD": (SGD, MOMENTUM, {}, {}),
    "Euclidean, Adam": (Adam, {"lr": 0.01}, {}, {}),
    "per tensor, fixed": (
        SGD,
        {"lr": 0.1},
        {"power": 2},
        {"rule": DecoupledPerTensor(), "strength": Fixed(0.5)},
    ),
    "coupled, capped, every 2": (
        Adam,
        {"lr": 0.01},
        {"power": 2},
        {"rule": Coupled(), "strength": Cap(1.0, 0.5, Warmup(3)), "every": 2},
    ),
}


def fitted(s):
    return min(0.04 * math.exp(-s.loss), float(s.g / s.d))


def capped(s):
    """A distance, whose h is that of √Tr F."""
    return min(min((s.step + 1) / 3, 1) * s.trace**-0.5, 0.5 * float(s.g / s.d))


FORMULAS = {
    "defaults, SGD": (sgd(0.1, 0.9), DEFAULT),
    "defaults, Adam": (adamw(0.01), DEFAULT),
    "defaults, every 2": (
        sgd(0.1, 0.9),
        Method(DEFAULT.strength, by_rows=True, held=True, every=2),
    ),
    "Euclidean, SGD": (sgd(0.1, 0.9), Method(fitted)),
    "Euclidean, Adam": (adamw(0.01), Method(fitted)),
    "per tensor, fixed": (sgd(0.1), Method(lambda s: 0.5, power=2, projected="tensors")),
    "coupled, capped, every 2": (adamw(0.01), Method(capped, power=2, projected="", every=2)),
}
NUMBERS = {  # losses of five steps, then Tr F at the last, sum and norm of the weights after it
    "defaults, SGD": [
        *(1.691956821701972, 1.6185656285472254, 1.4913308242378929, 1.3356641132307094),
        *(1.1766700329298156, 1.582452761435485, -0.3555908273990378, 4.381543168545422),
    ],
    "defaults, Adam": [
        *(1.691956821701972, 1.6551258612611217, 1.6085279370295313, 1.5633993778583348),
        *(1.5197078581601027, 2.4377291848032265, -0.12015529632216304, 4.544742439482319),
    ],
    "defaults, every 2": [
        *(1.691956821701972, 1.6189810787631036, 1.49281005526293, 1.3386176035566684),
        *(1.1809687996011253, 1.5555048086855032, -0.2867659672387246, 4.363333692751208),
    ],
    "Euclidean, SGD": [
        *(1.6919568217019727, 1.6182709344430137, 1.4892583199963325, 1.3295500088656949),
        *(1.1652098020340158, 3.8540087847894453, -0.5933298072066684, 4.475952084486523),
    ],
    "Euclidean, Adam": [
        *(1.6919568217019727, 1.6499086444978315, 1.604621483414505, 1.560845255918015),
        *(1.518633427458424, 4.87113688118468, 0.7904440855402839, 4.52765802569686),
    ],
    "per tensor, fixed": [
        *(1.6919568217019723, 1.6204107342584388, 1.556237591935604, 1.4978659857660719),
        *(1.4442157528344306, 4.34849604943284, 0.8274153606357781, 4.512836239467615),
    ],
    "coupled, capped, every 2": [
        *(1.691956821701972, 1.6636181294042605, 1.6263365563074461, 1.5763478171320606),
        *(1.5422303971725142, 4.661931081733286, 4.24202490843815, 5.305670364481426),
    ],
}


@pytest.mark.parametrize(
    ("engine", "tolerance", "of_sum"),  # the sum of the weights cancels to a tenth
    [(DoubleBackward(), 1e-9, 0.0), (FiniteDifference(), 1e-6, 2e-7)],
    ids=["exact", "default"],
)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_trajectory(name, engine, tolerance, of_sum):
    """The method as released: whoever changes these numbers changes the method, and says so.

    The numbers are those of the exact h, which the default engine follows within its error.
    """
    base, options, parts, ours = GOLDEN[name]
    estimator = PerSample(engine, **parts)
    model, batch = network()
    criterion = nn.CrossEntropyLoss(reduction="none")
    optimizer = F3EO(model, base, estimator=estimator, **options, **WHOLE | ours)
    found = [float(optimizer.step(lambda x, y: criterion(model(x), y), *batch)) for _ in range(5)]
    found += [float(optimizer.trace), float(weights(model).sum()), float(weights(model).norm())]
    assert found == pytest.approx(NUMBERS[name], rel=tolerance, abs=of_sum)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_golden_numbers_are_those_of_the_formulas(name):
    """The method written out once more, on one long vector, with g and h from the dense truth."""
    model, batch = network()
    criterion = nn.CrossEntropyLoss(reduction="none")
    steps = list(run(model, lambda x, y: criterion(model(x), y), [batch] * 5, *FORMULAS[name]))
    last = steps[-1]
    found = [s.loss for s in steps]
    found += [last.trace, float(last.theta.sum()), float(last.theta.norm())]
    assert found == pytest.approx(NUMBERS[name], rel=1e-9)
