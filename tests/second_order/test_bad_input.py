"""Bad arguments and closures are refused, steps that are not finite are skipped; no change."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import case
from f3eo import Categorical
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG
from second_order.helpers import OPTIMIZERS, bits, made, same

NAN = float("nan")
MODEL = nn.Linear(2, 2)
ARGUMENTS = {
    "lr −1": (lambda o: o(MODEL, lr=-1.0), ValueError, "lr must be > 0.0, received -1.0"),
    "lr text": (lambda o: o(MODEL, lr="1"), TypeError, "lr must be a number, received '1'"),
    "iterations": (
        lambda o: o(MODEL, max_iterations=0),
        ValueError,
        "max_iterations must be > 0, received 0",
    ),
    "iterations float": (lambda o: o(MODEL, max_iterations=1.5), TypeError, "an integer.*1.5"),
    "tolerance": (lambda o: o(MODEL, tolerance=2.0), ValueError, r"\(0.0, 1.0\], received 2.0"),
    "tolerance nan": (lambda o: o(MODEL, tolerance=NAN), ValueError, "tolerance.*nan"),
    "on_nonfinite": (
        lambda o: o(MODEL, on_nonfinite="stop"),
        ValueError,
        '"skip" or "raise", received \'stop\'',
    ),
    "no parameters": (lambda o: o([]), ValueError, "empty parameter list"),
    "complex": (
        lambda o: o([torch.zeros(2, dtype=torch.complex64)]),
        ValueError,
        "complex.*view_as_real",
    ),
    "sparse": (lambda o: o([torch.eye(2).to_sparse()]), ValueError, r"to_dense\(\)"),
    "sparse embedding": (
        lambda o: o(nn.Embedding(3, 2, sparse=True)),
        ValueError,
        "sparse gradients.*sparse=False",
    ),
    "foreign": (
        lambda o: o(nn.Linear(2, 2)).add_param_group({"params": [nn.Parameter(torch.zeros(1))]}),
        ValueError,
        "does not belong to the model",
    ),
}


# Refusals.


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments_are_refused_with_value_and_cure(name, optimizer):
    make, error, words = ARGUMENTS[name]
    with pytest.raises(error, match=rf"(?s){words}"):
        make(OPTIMIZERS[optimizer])


@pytest.mark.parametrize("value", [0.0, -1.0, NAN])
def test_damping_and_radius_are_positive(value):
    for make, word in (
        (lambda: GaussNewton(MODEL, damping=value), "damping"),
        (lambda: LayerwiseGaussNewton(MODEL, damping=value), "damping"),
        (lambda: NewtonCG(MODEL, radius=value), "radius"),
    ):
        with pytest.raises(ValueError, match=f"{word} must be > 0.0, received {value}"):
            make()
    with pytest.raises(TypeError, match=r"generator.*received 3.*manual_seed"):
        NewtonCG(MODEL, generator=3)


@pytest.mark.parametrize("kind", [GaussNewton, LayerwiseGaussNewton])
def test_gauss_newton_refuses_bare_losses_and_names_the_cure(kind):
    row = case("mlp")
    optimizer, before = kind(row.model), bits(row.model)
    with pytest.raises(TypeError, match=r"Categorical\(logits, targets\).*NewtonCG takes losses"):
        optimizer.step(row.losses, *row.batch)
    assert same(before, bits(row.model)) and optimizer.steps == 0


CLOSURES = {
    "none": (None, TypeError, "needs a function.*received None"),
    "backward": (
        lambda m: (
            lambda x, y: (lambda z: (z.mean().backward(), z)[1])(
                F.cross_entropy(m(x), y, reduction="none")
            )
        ),
        RuntimeError,
        r"called backward\(\)",
    ),
    "detached": (
        lambda m: lambda x, y: F.cross_entropy(m(x), y, reduction="none").detach(),
        ValueError,
        r"detach\(\)",
    ),
    "text": (lambda m: lambda x, y: "loss", TypeError, "received str"),
    "other size": (
        lambda m: lambda x, y: F.cross_entropy(m(x), y, reduction="none")[:2],
        ValueError,
        "batch of 6 samples",
    ),
    "other model": (
        lambda m: lambda x, y: Categorical(MODEL.double()(x[:, :2]), y.clamp(max=1)),
        ValueError,
        "none of the 6 parameters",
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CLOSURES)
def test_bad_closures_are_refused_and_change_nothing(name, optimizer):
    make, error, words = CLOSURES[name]
    row, opt = made(optimizer)
    before = bits(row.model)
    with pytest.raises(error, match=words):
        opt.step(make and make(row.model), *row.batch)
    assert same(before, bits(row.model))
    assert all(p.grad is None for p in row.model.parameters())


def test_a_group_that_is_refused_is_not_kept():
    optimizer = NewtonCG(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="does not belong to the model"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_on_two_devices_are_refused(name):
    parameters = [nn.Parameter(torch.zeros(2, device=device)) for device in ("cpu", "meta")]
    with pytest.raises(ValueError, match=r"one device, received \['cpu', 'meta'\]"):
        OPTIMIZERS[name](parameters).step(lambda: parameters[0])


# Something is not finite.


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("place", ["the loss", "the gradient", "the curvature"])
def test_what_is_not_finite_is_skipped_counted_or_raised(name, place):
    model = nn.BatchNorm1d(2, momentum=0.5).double()
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randint(2, (6,))

    def closure(x, y):
        z = model(x)
        if place == "the loss":
            z = z * NAN
        else:  # |u|^p at u = 0: slope infinite for p < 1, curvature infinite for 1 < p < 2
            u = (model.bias - model.bias.detach()).abs().clamp(min=0)
            power = 0.5 if place == "the gradient" else 1.5
            z = z + u.pow(power)
        return Categorical(z, y)

    optimizer = OPTIMIZERS[name](model)
    if name != "newton" and place == "the curvature":
        return  # Gauss-Newton has no curvature of the model's own
    before = bits(model)
    with pytest.warns(UserWarning, match=f"^{place} is not finite.*skipped"):
        optimizer.step(closure, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(closure, x, y)
    assert same(before, bits(model))
    assert (optimizer.steps, optimizer.skipped, optimizer.report) == (0, 2, None)
    raising = OPTIMIZERS[name](model, on_nonfinite="raise")
    with pytest.raises(FloatingPointError, match=place):
        raising.step(closure, x, y)
    assert same(before, bits(model))
