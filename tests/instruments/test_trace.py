"""The trace by parameter, layer and group against a loop over samples and labels."""

import math

import pytest
import torch
from torch import nn

from dense import flat
from f3eo import Categorical, Elementwise, Gaussian, fisher_trace
from f3eo.closure.likelihood import Likelihood
from f3eo.instruments import trace
from instruments.truths import MODELS, close, dense, error


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_loop_over_samples(name, weighted):
    d = dense(name, weighted=weighted)
    found = trace(d.model, d.closure, d.data)
    squares = d.gradients.square()
    close(found.value, d.shares @ squares.sum(1))
    close(found.error, error(squares.sum(1), d.weights))
    assert found.samples == len(d.gradients)
    parts = found.by_parameter()
    assert list(parts) == list(d.slices)
    for key, own in d.slices.items():
        close(parts[key].value, d.shares @ squares[:, own].sum(1))
        close(parts[key].error, error(squares[:, own].sum(1), d.weights))
    close(sum(part.value for part in parts.values()), found.value)


def test_in_a_metric():
    d = dense("mlp")
    found = trace(d.model, d.closure, d.data, metric=Elementwise())
    lengths = flat([p.detach().abs() for p in d.model.parameters()])
    close(found.value, (lengths * d.gradients).square().sum(1).mean())


def test_layers_and_groups_count_what_samples_have_in_common():
    d = dense("attention")
    found = trace(d.model, d.closure, d.data)
    squares = {key: d.gradients[:, own].square().sum(1) for key, own in d.slices.items()}
    layers = found.by_layer()
    assert list(layers) == ["", "tokens", "places", "norm", "pack", "out", "head"]
    own = squares["pack.weight"] + squares["pack.bias"]
    close(layers["pack"].value, own.mean())
    close(layers["pack"].error, error(own, d.weights))
    close(layers[""].value, (squares["start"] + squares["scale"]).mean())
    close(sum(layer.value for layer in layers.values()), found.value)
    groups = found.by_group({"ends": ["tokens.weight", "head.weight"], "one": ["scale", "scale"]})
    own = squares["tokens.weight"] + squares["head.weight"]
    close(groups["ends"].error, error(own, d.weights))
    close(groups["one"].value, squares["scale"].mean())


def test_parameters_without_names_go_by_id():
    d = dense("mlp")
    parameters = list(d.model.parameters())
    found = trace(iter(parameters), d.closure, d.data)
    assert list(found.by_layer()) == list(found.by_parameter()) == [id(p) for p in parameters]
    close(found.value, d.gradients.square().sum(1).mean())


def test_a_parameter_that_is_not_reached_has_none():
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    found = trace(model, lambda x: model[0](x)[:, 0], [torch.randn(3, 2)])
    assert found.by_layer()["1"].value == 0 and found.by_layer()["0"].value > 0


def over_labels(d, chances):
    """Σ_y p(y|x_i) ‖∇ℓ(x_i, y)‖² of every sample, by plain gradients."""
    parameters = [p for p in d.model.parameters() if p.requires_grad]
    rows = []
    for x in d.case.batch[0]:
        output = d.model(x[None])
        total = 0
        for chance, loss in chances(output):
            g = torch.autograd.grad(loss, parameters, retain_graph=True)
            total = total + chance * flat(g).square().sum()
        rows.append(total)
    return torch.stack(rows)


def classes(logits):
    log_p = logits[0].log_softmax(-1)
    return [(float(v.detach().exp()), -v) for v in log_p]


@pytest.mark.parametrize("name", ["mlp", "cnn", "no_rules", "partly_frozen"])
def test_exact_labels_are_all_classes(name):
    d = dense(name)
    found = trace(d.model, d.case.drawn, d.data, labels="exact")
    expected = over_labels(d, classes)
    close(found.value, expected.mean())
    close(found.error, error(expected, d.weights))


def test_exact_labels_of_a_gaussian_are_its_outputs():
    """E_y ‖Jᵀ(f − y)‖²/n² = ‖J‖²/n² for n outputs with unit variance."""
    d = dense("regression")
    found = trace(d.model, d.case.drawn, d.data, labels="exact")
    expected = over_labels(d, lambda f: [(0.25, v) for v in f[0]])
    close(found.value, expected.mean())
    (x, y), *_ = d.data
    half = trace(d.model, lambda x, y: Gaussian(d.model(x), y, 2.0), [(x, y)], labels="exact")
    close(4 * half.value, expected[:3].mean())


def test_drawn_labels_are_the_model_s_and_follow_the_generator():
    d = dense("mlp")
    (x, y), _ = d.data
    draw = lambda seed: trace(  # noqa: E731
        d.model, d.case.drawn, [(x, y)], labels="drawn", generator=seeded(seed)
    )
    drawn = Categorical(d.model(x), y).sample(seeded(3))
    close(draw(3).value, trace(d.model, d.case.drawn, [(x, drawn)]).value)
    values = torch.tensor([draw(seed).value for seed in range(200)], dtype=torch.float64)
    exact = trace(d.model, d.case.drawn, [(x, y)], labels="exact").value
    assert abs(values.mean() - exact) < 4 * values.std() / 200**0.5
    assert values.std() > 0


def test_a_generator_moves_on_and_torch_s_own_does_not():
    d = dense("mlp")
    own = seeded(0)

    def draw(generator=None):
        return trace(d.model, d.case.drawn, d.data, labels="drawn", generator=generator).value

    assert draw(own) != draw(own)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert draw() == draw()
    assert torch.equal(state, torch.get_rng_state())


def test_tokens_count_by_their_own_weights():
    d = dense("attention")
    closure = lambda x, y: Categorical(  # noqa: E731
        d.model(x), y, ignore_index=4, per_token=True
    )
    whole = [tuple(torch.cat(t) for t in zip(*d.data, strict=True))]
    for labels in ("data", "drawn", "exact"):
        arguments = {"labels": labels, "generator": seeded(1)}
        parts, joint = (trace(d.model, closure, data, **arguments) for data in (d.data, whole))
        kept = (whole[0][1] != 4).sum(1).double()
        close(joint.weights, kept)
        close(parts.value, kept @ parts.squared.sum(1) / kept.sum())
        if labels != "drawn":
            close(parts.value, joint.value)
    _, expected = fisher_trace(d.model, closure, *whole[0])
    close(trace(d.model, closure, d.data).value, expected.detach())


def test_the_model_is_left_as_it_was_and_measured_in_its_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    model.eval()
    model[2].train()
    model[0].weight.grad = grad = torch.ones(8, 3)
    x, y = torch.randn(6, 3), torch.randint(2, (6,))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (
        trace(model, lambda x, y: Categorical(model(x), y), [(x, y)], labels=labels).value
        for labels in ("data", "data")
    )
    assert first == second  # the same masks
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert model[0].weight.grad is grad and model[2].training and not model[1].training
    assert (
        model.eval()
        and first != trace(model, lambda x, y: Categorical(model(x), y), [(x, y)]).value
    )


def test_under_no_grad_and_one_sample():
    d = dense("mlp")
    with torch.no_grad():
        found = trace(d.model, d.closure, [tuple(t[:1] for t in d.data[0])])
    close(found.value, d.gradients[0].square().sum())
    assert math.isnan(found.error) and not found.squared.requires_grad


class Unlabelled(Likelihood):
    """Keeps its labels under a name of its own."""

    def __init__(self, z):
        self.parameters = z

    def losses(self):
        return self.parameters[:, 0]

    def sample(self, generator=None):
        return self.parameters[:, 0].detach()

    def root(self, noise):
        return noise


def test_bad_input():
    d = dense("mlp")
    with pytest.raises(ValueError, match="received 'true'"):
        trace(d.model, d.closure, d.data, labels="true")
    for labels in ("drawn", "exact"):
        with pytest.raises(TypeError, match=r"return a likelihood.*labels=\"data\""):
            trace(d.model, d.closure, d.data, labels=labels)
    with pytest.raises(TypeError, match="Unlabelled keeps no labels in an attribute targets"):
        trace(d.model, lambda x, y: Unlabelled(d.model(x)), d.data, labels="drawn")
    found = trace(d.model, d.closure, d.data)
    with pytest.raises(ValueError, match=r"group 'a' names '9.weight'.*0.weight, 0.bias"):
        found.by_group({"a": ["9.weight"]})
    for members in ("0.weight", []):
        with pytest.raises(ValueError, match="group 'a' needs a list with at least one name"):
            found.by_group({"a": members})
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="samples that do not mix"):
        trace(model, lambda x: model(x)[:, 0], [torch.randn(3, 2)])


def seeded(seed):
    return torch.Generator().manual_seed(seed)
