"""The gradient noise scale against sums over pairs of samples, and its errors against draws."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from f3eo.instruments import noise_scale
from f3eo.instruments.means import jackknife, weighted_mean
from instruments.truths import MODELS, close, dense


def pairs(g, w):
    """‖G‖² and tr Σ by loops over pairs of different samples."""
    signal = spread = total = 0.0
    for i in range(len(g)):
        for j in range(len(g)):
            if i != j:
                signal += float(w[i] * w[j] * g[i].dot(g[j]))
                total += float(w[i] * w[j])
    spread = float((w / w.sum()) @ g.square().sum(1))
    return signal / total, spread - signal / total


def left_out(g, w, statistic):
    """The jackknife, one sample left out after the other."""
    kept = [i for i in range(len(g)) if w[i] > 0]
    values = []
    for i in kept:
        rest = [j for j in kept if j != i]
        values.append(statistic(*pairs(g[rest], w[rest])))
    mean = sum(values) / len(values)
    return ((len(kept) - 1) / len(kept) * sum((v - mean) ** 2 for v in values)) ** 0.5


STATISTICS = {
    "signal": lambda signal, variance: signal,
    "variance": lambda signal, variance: variance,
    "scale": lambda signal, variance: variance / signal,
    "share": lambda signal, variance: signal / (signal + variance / 4),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_mean_over_pairs(name, weighted):
    d = dense(name, weighted=weighted)
    found = noise_scale(d.model, d.closure, d.data)
    assert found.samples == len(d.gradients)
    parts = {None: (found, d.gradients)}
    by_parameter = found.by_parameter()
    assert list(by_parameter) == list(d.slices)
    parts |= {key: (by_parameter[key], d.gradients[:, own]) for key, own in d.slices.items()}
    for key, (part, g) in parts.items():
        for statistic, of in STATISTICS.items():
            estimate = part.share(4) if statistic == "share" else getattr(part, statistic)
            values = pairs(g, d.weights)
            if min(map(abs, values)) < 1e-20:  # exactly 0: an unused row, a shift under softmax
                continue
            close(estimate.value, of(*values), 1e-7)
            if key is None:
                close(estimate.error, left_out(g, d.weights, of), 1e-7)


def test_layers_and_groups():
    d = dense("mlp")
    found = noise_scale(d.model, d.closure, d.data)
    layers = found.by_layer()
    assert list(layers) == ["0", "2", "4"]
    own = [d.slices["2.weight"], d.slices["2.bias"]]
    g = torch.cat([d.gradients[:, s] for s in own], 1)
    close(layers["2"].scale.value, STATISTICS["scale"](*pairs(g, d.weights)))
    close(layers["2"].scale.error, left_out(g, d.weights, STATISTICS["scale"]))
    close(sum(layer.variance.value for layer in layers.values()), found.variance.value)
    group = found.by_group({"all": list(d.slices)})["all"]
    close(group.scale.error, found.scale.error)


def test_it_is_the_textbook_one_without_weights():
    """tr Σ over N − 1 and ‖g_N‖² − tr Σ/N, whatever the batches, in whatever order."""
    d = dense("mlp")
    g, count = d.gradients, len(d.gradients)
    variance = (g - g.mean(0)).square().sum() / (count - 1)
    signal = g.mean(0).square().sum() - variance / count
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*d.case.batch), batch_size=2, shuffle=True)
    for data in (loader, iter(list(d.data)), [d.case.batch]):
        found = noise_scale(iter(list(d.model.parameters())), d.closure, data)
        close(found.variance.value, variance)
        close(found.signal.value, signal)
        close(found.share(count).value, signal / g.mean(0).square().sum())


def test_without_bias_and_with_errors_that_hold():
    """Linear losses, whose gradients are drawn: means over draws, and their spread, are known."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    mean, deviations = torch.tensor([0.6, -0.3, 0.1]), torch.tensor([1.0, 0.5, 2.0])
    values, errors = [], []
    for _ in range(300):
        x = mean + deviations * torch.randn(30, 3, generator=generator)
        found = noise_scale(model, lambda x: model(x)[:, 0], [(x.double(),)])
        values.append([found.signal.value, found.variance.value])
        errors.append([found.signal.error, found.variance.error])
    values, errors = torch.tensor(values), torch.tensor(errors)
    expected = torch.tensor([float(mean.square().sum()), float(deviations.square().sum())])
    spread = values.std(0)
    assert ((values.mean(0) - expected).abs() < 4 * spread / 300**0.5).all()
    assert ((errors.square().mean(0).sqrt() / spread - 1).abs() < 0.2).all()


def test_a_batch_without_weight_counts_for_nothing():
    d = dense("mlp", weighted=True)
    (x, y, w), rest = d.data
    expected = noise_scale(d.model, d.closure, [rest])
    found = noise_scale(d.model, d.closure, [(x, y, 0 * w), rest])
    close(found.scale.value, expected.scale.value)
    close(found.scale.error, expected.scale.error)


def test_few_samples():
    d = dense("mlp")
    two = noise_scale(d.model, d.closure, [tuple(t[:2] for t in d.data[0])])
    close(two.signal.value, d.gradients[0].dot(d.gradients[1]))
    assert math.isnan(two.signal.error)
    with pytest.raises(ValueError, match="at least 2 samples of weight > 0, received 1"):
        noise_scale(d.model, d.closure, [tuple(t[:1] for t in d.data[0])])
    with pytest.raises(ValueError, match="at least 1 sample, received 0"):
        two.share(0)


def test_dropout_draws_the_same_masks_in_both_sweeps():
    d = dense("mlp")
    d.model[1] = nn.Sequential(d.model[1], nn.Dropout(0.5))
    found = noise_scale(d.model.train(), d.closure, d.data)
    close((found.products * found.weights[:, None]).sum(0), found.resultant)


def test_means_and_errors():
    values, weights = torch.tensor([1.0, 2, 6, 9]).double(), torch.tensor([1.0, 1, 1, 0]).double()
    found = weighted_mean(values, weights)
    assert found.value == 3 and found.error == pytest.approx((7 / 3) ** 0.5)  # sd √7 over √3
    assert str(found) == "3 ± 2"
    nothing = weighted_mean(values, 0 * weights)
    assert math.isnan(nothing.value) and math.isnan(nothing.error)
    means = (values.sum() - values) / 3
    found = jackknife(values.mean(), means)
    assert found.error == pytest.approx(float(values.std() / 2))
    assert math.isnan(jackknife(values[0], values[:1]).error)
