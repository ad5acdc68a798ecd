"""The inspection against the instruments, on the page and on the command line."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dense import flat, truth
from f3eo import Categorical, cli
from f3eo.bench.execute.checkpoint import Checkpoint, Keeper
from f3eo.bench.inspect.measure import Subject, inspected
from f3eo.bench.inspect.page import inspect
from f3eo.bench.inspect.task import inspect_checkpoints
from f3eo.bench.run.row import record
from f3eo.bench.tasks import TASKS


def subject(seed=0, sizes=(4, 5, 3), **more):
    torch.manual_seed(seed)
    a, b, c = sizes
    model = nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Linear(b, c)).double()
    return Subject(f"model {seed}", model, lambda x, y: Categorical(model(x), y), model, **more)


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(9, 4, generator=g, dtype=torch.float64)
    y = torch.randint(3, (9,), generator=g)
    return [(x[:5], y[:5]), (x[5:], y[5:])]


def test_numbers_are_those_of_the_dense_matrices(data):
    given = subject()
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    dense = truth(
        given.model, lambda x, y: F.cross_entropy(given.model(x), y, reduction="none"), x, y
    )
    fisher = dense.gradients.mT @ dense.gradients / 9
    theta = flat(list(given.model.parameters())).detach()
    before = [p.detach().clone() for p in given.model.parameters()]
    found = inspected(given, data, points=3)
    precision = len(theta) / float(theta.square().sum())
    values = torch.linalg.eigvalsh(fisher).clamp(min=0)
    assert found.samples == 9 and found.size == len(theta)
    assert found.loss.value == pytest.approx(float(dense.losses.mean()))
    assert found.trace.value == pytest.approx(float(dense.trace))
    assert found.precision == pytest.approx(precision)
    assert found.log_det == pytest.approx(float((1 + 9 * values / precision).log().sum()))
    dimension = float((9 * values / (9 * values + precision)).sum())
    assert found.dimension == pytest.approx(dimension)
    assert found.accuracy == pytest.approx(float((given.model(x).argmax(1) == y).double().mean()))
    first = fisher[:25, :25]  # 4·5 weights and 5 biases
    own = torch.linalg.eigvalsh(first).clamp(min=0)
    assert [layer.name for layer in found.layers] == ["0", "2"]
    assert found.layers[0].size == 25
    assert found.layers[0].trace.value == pytest.approx(float(first.trace()))
    assert found.layers[0].log_det == pytest.approx(float((1 + 9 * own / precision).log().sum()))
    order = dense.squared_norms.argsort(descending=True).tolist()
    assert [e.index for e in found.extremes] == order
    assert found.extremes[0].norm == pytest.approx(float(dense.squared_norms.max().sqrt()))
    assert [e.label for e in found.extremes] == y[order].tolist()
    assert set(found.energies) == {
        "Laplace, full",
        "Laplace, Kronecker",
        "Laplace, diagonal",
        "isotropic noise",
    }
    assert all(torch.equal(p, b) for p, b in zip(given.model.parameters(), before, strict=True))


def test_two_models_stand_side_by_side(data, tmp_path):
    path = torch.randn(6, 43)
    file = tmp_path / "page.html"
    inspect(
        [subject(0, path=path), subject(1)],
        data,
        file,
        title="<both>",
        points=3,
        pictures=lambda i: torch.rand(4, 4),
    )
    text = file.read_text()
    assert "model 0" in text and "model 1" in text and "&lt;both&gt;" in text
    assert text.count('<img src="data:image/svg+xml;base64,') == 3 + 2 + 2
    assert "The line is the path" in text and "http" not in text.replace("http-equiv", "")


def test_without_pictures_a_path_or_a_plane(data, tmp_path):
    file = tmp_path / "page.html"
    inspect([subject()], data, file, points=0)
    text = file.read_text()
    assert "Landscape" not in text and "The line is the path" not in text
    assert text.count("<img") == 3 and "<th>Guess</th>" in text


def test_a_path_within_reach_is_on_the_landscape(data):
    torch.manual_seed(3)
    given = subject()
    theta = flat(list(given.model.parameters())).detach()
    far = theta + 10 * torch.randn(8, len(theta)).cumsum(0).flip(0)
    found = inspected(subject(path=torch.cat([far, theta[None]]).float()), data, points=3).landscape
    assert found is not None
    assert found.path[4:].abs().max() <= found.steps[-1] and len(found.path) == 9


def test_one_too_many_and_other_layers_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="a page shows 1 or 2 models, received 3"):
        inspect([subject()] * 3, data, tmp_path / "a")
    other = subject()
    with pytest.raises(ValueError, match="have the same layers"):
        inspect([other, Subject("x", nn.Linear(4, 3), other.closure)], data, tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def typed(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", "inspect", *map(str, words)])
        try:
            code = cli.main()
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


def test_a_checkpoint_of_a_run_becomes_a_page(tmp_path, typed, make_run):
    keeper = Keeper(make_run(method="f3eo"))
    record(keeper.run, watch=keeper)
    keeper.write(tmp_path)
    file, page = tmp_path / "digits-mlp-f3eo-0.pt", tmp_path / "new" / "page.html"
    code, out, _ = typed(file, "--page", page, "--samples", 40, "--points", 3)
    text = page.read_text()
    assert code == 0 and f"Page: {page}" in out
    assert "F3EO, seed 0" in text and "600 scans to train on" in text
    assert "The line is the path" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{wine}"], "wine.pt does not say its task: name it with --task"),
        (["{wine}", "--task", "win"], "unknown task 'win'; choose from digits-mlp"),
        (["{wine}", "--task", "digits-mlp"], "does not fit the model of digits-mlp: "),
        (["{wine}", "{wine}", "{wine}", "--task", "wine"], "1 or 2 checkpoints, received 3"),
        (["{wine}", "--task", "wine", "--samples", "1"], "samples must be at least 2, received 1"),
        (["{wine}", "--task", "wine", "--points", "4"], "points must be odd, received 4"),
        (["nowhere.pt", "--task", "wine"], "nowhere.pt: No such file or directory"),
    ],
)
def test_bad_requests_are_one_line(tmp_path, typed, words, message):
    file = tmp_path / "wine.pt"
    Checkpoint(TASKS["wine"].seeded_model(0).state_dict()).write(file)
    code, _, err = typed(*(w.format(wine=file) for w in words), "--page", tmp_path / "page.html")
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_a_task_that_is_text_has_a_table(tmp_path):
    file, page = tmp_path / "a.pt", tmp_path / "a.html"
    Checkpoint(TASKS["modular-addition"].seeded_model(0).state_dict()).write(file)
    inspect_checkpoints([file], "modular-addition", 8, page, 0)
    assert "<th>Sample</th>" in page.read_text()
