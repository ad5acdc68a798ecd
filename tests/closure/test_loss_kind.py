"""The kind of losses is detected from their graph, and users are warned where it matters."""

import time
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import distributions as d
from torch import nn
from torch.optim import SGD

from f3eo import F3EO, Cap, Categorical, Fitted, Gaussian, MiniBatch, PerSample, Sign, Weighted
from f3eo.closure.loss_kind import CLASS_WEIGHTS, PRODUCT, LossKind, read_loss_kind
from f3eo.strength import Observation

torch.manual_seed(0)
MODEL = nn.Linear(4, 3)
X, R = torch.randn(6, 4), torch.randn(6, 3)
Y, T = torch.randint(3, (6,)), torch.randint(3, (6, 5))
KEPT = torch.arange(30).view(6, 5) % 4 > 0
SOME, NONE = torch.where(KEPT, T, -100), Y.masked_fill(Y.eq(int(Y[0])), -100)


def z():
    return MODEL(X)


def z3():
    return MODEL(X)[:, :, None] * torch.linspace(1, 2, 5)


def ce(logits, targets, **options):
    return F.cross_entropy(logits, targets, reduction="none", **options)


def ctc():
    logits = z().expand(9, 6, 3).log_softmax(-1)
    lengths = torch.full((6,), 9), torch.full((6,), 2)
    return F.ctc_loss(logits, torch.ones(6, 2).long(), *lengths, reduction="none")


def focal():
    loss = ce(z(), Y)
    return (1 - torch.exp(-loss)) ** 2 * loss


IN_NATS = {
    "cross-entropy": lambda: ce(z(), Y),
    "of positions": lambda: ce(z3(), T),
    "soft labels": lambda: ce(z(), R.softmax(1)),
    "label smoothing": lambda: ce(z(), Y, label_smoothing=0.1),
    "label smoothing of positions": lambda: ce(z3(), T, label_smoothing=0.1).mean(1),
    "masked": lambda: ce(z3(), T) * KEPT,
    "masked mean": lambda: (ce(z3(), T) * KEPT).sum(1) / KEPT.sum(1),
    "divided": lambda: ce(z3(), T).sum(1) / 5,
    "where": lambda: torch.where(KEPT, ce(z3(), T), 0.0),
    "bce with logits": lambda: F.binary_cross_entropy_with_logits(
        z(), R.sigmoid(), reduction="none"
    ),
    "bce": lambda: F.binary_cross_entropy(z().sigmoid(), R.sigmoid(), reduction="none").sum(1),
    "ctc": ctc,
    "mixup": lambda: 0.3 * ce(z(), Y) + (1 - 0.3) * ce(z(), Y.flip(0)),
    "mixup by sample": lambda: R[:, 0] ** 2 * ce(z(), Y) + R[:, 1] ** 2 * ce(z(), Y.flip(0)),
    "dpo": lambda: -F.logsigmoid(0.1 * (z() - R)).sum(1),
    "softplus": lambda: F.softplus(-z()).mean(1),
    "gathered": lambda: -z().log_softmax(1).gather(1, Y[:, None]).squeeze(1),
    "indexed": lambda: -z().log_softmax(1)[torch.arange(6), Y],
    "one hot": lambda: -(F.one_hot(Y, 3) * z().log_softmax(1)).sum(1),
    "log of softmax": lambda: -z().softmax(1).log()[torch.arange(6), Y],
    "logsumexp": lambda: z().logsumexp(1) - z().gather(1, Y[:, None])[:, 0],
    "kl": lambda: F.kl_div(z().log_softmax(1), R.softmax(1), reduction="none").sum(1),
    "distribution": lambda: -d.Categorical(logits=z()).log_prob(Y),
    "with a regulariser": lambda: ce(z(), Y) + 0.1 * MODEL.weight.square().sum(),
    "two heads": lambda: ce(z(), Y) + 0.5 * F.mse_loss(z(), R, reduction="none").mean(1),
    "likelihood": lambda: Categorical(z(), Y),
    "per token": lambda: Categorical(z3().movedim(1, -1), SOME, per_token=True),
    "weighted": lambda: Weighted(ce(z3(), SOME), KEPT),
}
DENSITIES = {
    "likelihood of a density": lambda: Gaussian(z(), R, 0.01),
    "gaussian nll": lambda: F.gaussian_nll_loss(z(), R, z().exp(), reduction="none"),
    "normal": lambda: -d.Normal(z(), 0.01).log_prob(R).mean(1),
    "normal, learned": lambda: -d.Normal(z(), z().exp()).log_prob(R).sum(1),
}
OTHERS = {
    "mse": (lambda: F.mse_loss(z(), R, reduction="none"), "squared errors"),
    "square": (lambda: 0.5 * (z() - R).square().sum(1), "squared errors"),
    "power": (lambda: ((z() - R) ** 2).mean(1), "squared errors"),
    "product": (lambda: (e := z() - R) * e, "squared errors"),
    "l1": (lambda: F.l1_loss(z(), R, reduction="none"), "absolute errors"),
    "smooth l1": (lambda: F.smooth_l1_loss(z(), R, reduction="none"), "smooth absolute errors"),
    "huber": (lambda: F.huber_loss(z(), R, reduction="none"), "Huber losses"),
    "norm": (lambda: torch.linalg.vector_norm(z() - R, dim=1), "norms"),
    "hinge": (lambda: F.relu(1 - z() * R), "hinge or margin losses"),
    "clamped": (lambda: (1 - z() * R).clamp(min=0).sum(1), "hinge or margin losses"),
    "multi-margin": (lambda: F.multi_margin_loss(z(), Y, reduction="none"), "margin losses"),
    "triplet": (
        lambda: F.triplet_margin_loss(z(), MODEL(X + 1), R, reduction="none"),
        "hinge or margin losses",
    ),
    "class weights": (lambda: ce(z(), Y, weight=torch.tensor([1.0, 5, 0.2])), CLASS_WEIGHTS),
    "class weights, smooth": (
        lambda: ce(z3(), T, weight=torch.tensor([1.0, 5, 0.2]), label_smoothing=0.1),
        CLASS_WEIGHTS,
    ),
    "focal": (focal, PRODUCT),
}


def stepped(make, strength=None, **options):
    """A step with these losses, and the warnings."""
    model = MODEL
    optimizer = F3EO(model, SGD, lr=0.0, strength=strength, fraction=1, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            optimizer.step(lambda x: make(), X)
    return [str(w.message) for w in told]


@pytest.mark.parametrize("name", IN_NATS)
def test_losses_in_nats_are_told_nothing(name):
    if name != "ctc":  # torch has no second derivative of it
        assert stepped(IN_NATS[name], estimator=MiniBatch()) == []
    losses = IN_NATS[name]()
    if isinstance(losses, torch.Tensor):
        found = read_loss_kind(losses)
        assert found.other is None and (found.nats or found.density)


@pytest.mark.parametrize("name", DENSITIES)
def test_densities_may_be_negative(name):
    made = DENSITIES[name]
    assert [m for m in stepped(made, estimator=MiniBatch()) if "negative" in m] == []
    if isinstance(made(), torch.Tensor):
        assert read_loss_kind(made()).density and read_loss_kind(made()).other is None


@pytest.mark.parametrize("name", OTHERS)
def test_losses_in_other_units_are_told_once_with_the_cure(name):
    make, what = OTHERS[name]
    assert read_loss_kind(make()).other == what
    if name == "multi-margin":
        return  # torch has no second derivative of it
    told = stepped(make, estimator=MiniBatch())
    loss = float(make().detach().mean())
    assert len(told) == 1
    assert f"received {what}: its factor e^(-L) is" in told[0] and f"mean {loss:.3g}," in told[0]
    assert told[0].endswith("use strength=Cap(0.04)")


@pytest.mark.parametrize("name", OTHERS)
def test_a_cap_takes_any_units(name):
    if name != "multi-margin":
        assert stepped(OTHERS[name][0], Cap(0.04), estimator=MiniBatch()) == []
        assert stepped(OTHERS[name][0], Fitted(0.0), estimator=MiniBatch()) == []


@pytest.mark.parametrize("estimator", [PerSample, Sign, MiniBatch])
def test_every_estimator_shows_the_graph(estimator):
    """Passes decompose operations; the end of the graph stays."""
    optimizer = F3EO(MODEL, SGD, lr=0.0, estimator=estimator(), fraction=1)
    with pytest.warns(UserWarning, match="received squared errors"):
        optimizer.step(lambda x, r: F.mse_loss(MODEL(x), r, reduction="none"), X, R)
    optimizer = F3EO(MODEL, SGD, lr=0.0, estimator=estimator(), fraction=1)
    labels = torch.where(torch.arange(6) > 3, -100, Y)
    with pytest.warns(UserWarning, match="labels are ignored"):
        optimizer.step(lambda x, y: ce(MODEL(x), y), X, labels)


def test_negative_losses_that_are_no_densities_are_told():
    told = stepped(lambda: -2 * ce(z(), Y), estimator=MiniBatch())
    assert len(told) == 1 and "received negative losses" in told[0]


def test_a_log_likelihood_that_is_maximized_is_not_negative():
    optimizer = F3EO(MODEL, SGD, lr=0.0, maximize=True, estimator=MiniBatch(), fraction=1)
    optimizer.step(lambda x, y: -ce(MODEL(x), y), X, Y)


def test_unknown_losses_that_leave_nothing_are_told_after_a_hundred_steps():
    strength = Fitted(0.04)
    strength.see(LossKind(), torch.tensor([6.0]))
    for step in range(99):
        strength.scheduled(step)  # knows no loss
        strength.at(Observation(step, 6.0))
    strength.at(Observation(99, 1.0))
    for step in range(99):
        strength.at(Observation(step, 6.0))
    with pytest.warns(UserWarning, match=r"less than 1% for 100 steps.*Cap\(0\.04\)"):
        strength.at(Observation(0, 6.0))
    strength.at(Observation(0, 6.0))


def test_large_cross_entropies_are_told_nothing():
    """A language model starts at the logarithm of its vocabulary."""
    strength = Fitted(0.04)
    strength.see(LossKind(nats=True), torch.tensor([11.0]))
    for step in range(300):
        strength.at(Observation(step, 11.0))


IGNORED = {
    "samples": lambda: ce(z(), NONE),
    "positions": lambda: ce(z3(), SOME),
    "averaged": lambda: ce(z3(), SOME).mean(1),
    "summed": lambda: ce(z3(), SOME).sum(1) / 5,
    "masked": lambda: ce(z3(), SOME) * KEPT,
    "smooth": lambda: ce(z3(), SOME, label_smoothing=0.1),
    "another index": lambda: ce(z3(), T, ignore_index=1),
    "beside another": lambda: ce(z3(), T) + ce(z3(), SOME),
}
COUNTED = {
    "none ignored": lambda: ce(z3(), T),
    "by sample": lambda: ce(z3(), SOME).sum(1) / KEPT.sum(1),
    "by batch": lambda: ce(z3(), SOME) * 30 / KEPT.sum(),
    "weighted": lambda: Weighted(ce(z3(), SOME), KEPT),
    "likelihood": lambda: Categorical(z3().movedim(1, -1), SOME),
}


@pytest.mark.parametrize("name", IGNORED)
def test_ignored_labels_that_count_as_zeros_are_told_once(name):
    told = stepped(IGNORED[name], estimator=MiniBatch())
    assert len(told) == 1
    assert "labels are ignored" in told[0]
    assert "Categorical(logits, targets, per_token=True) or Weighted(losses, weights)" in told[0]
    expected = {"samples": int((NONE == -100).sum()), "another index": int((T == 1).sum())}
    assert told[0].startswith(f"{expected.get(name, int((~KEPT).sum()))} labels")


@pytest.mark.parametrize("name", COUNTED)
def test_ignored_labels_that_do_not_count_are_told_nothing(name):
    assert stepped(COUNTED[name], estimator=MiniBatch()) == []


def test_labels_that_are_ignored_later_are_found_with_a_new_shape():
    optimizer = F3EO(MODEL, SGD, lr=0.0, estimator=MiniBatch(), fraction=1)

    def closure(x, y):
        return ce(MODEL(x), y)

    for _ in range(40):
        optimizer.step(closure, X, Y)
    with pytest.warns(UserWarning, match="1 labels are ignored"):
        optimizer.step(closure, X[:4], torch.tensor([0, 1, -100, 2]))


def test_a_look_is_cheap_and_bounded():
    """A sum of a thousand terms is not read to its end."""
    losses = ce(z(), Y)
    for _ in range(3000):
        losses = losses + 0.1 * losses
    start = time.perf_counter()
    assert read_loss_kind(losses) == LossKind()
    assert time.perf_counter() - start < 0.1
