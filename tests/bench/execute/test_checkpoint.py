"""Checkpoints: what is read, what is refused, and the path that a run leaves."""

import pytest
import torch
from torch import nn

from f3eo.bench.execute.checkpoint import Checkpoint, Keeper, read
from f3eo.bench.execute.pool import execute
from f3eo.bench.run.row import record
from f3eo.bench.tasks import TASKS


def net():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        *(lambda s, n=n: {n: s, "epoch": 3} for n in ("model", "state_dict", "model_state_dict")),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_files_of_other_programs_are_read(tmp_path, wrap, prefix):
    file, model, other = tmp_path / "a.pt", net(), net()
    torch.save(wrap({prefix + n: t for n, t in model.state_dict().items()}), file)
    found = read(file)
    found.into(other, file, "a-task")
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert found.path.shape == (0, 0) and not found.facts


def test_what_is_written_comes_back(tmp_path):
    file, path = tmp_path / "a.pt", torch.randn(4, 8)
    Checkpoint(net().state_dict(), path, {"task": "wine", "seed": 2}).write(file)
    found = read(file)
    assert torch.equal(found.path, path) and found.facts == {"task": "wine", "seed": 2}
    assert [f.name for f in tmp_path.iterdir()] == ["a.pt"]


def test_a_run_leaves_its_model_and_its_path(tmp_path, make_run):
    run = make_run()
    keeper = Keeper(run)
    row = record(run, watch=keeper)
    keeper.write(tmp_path)
    found = read(tmp_path / "digits-mlp-sgd-0.pt")
    model = TASKS["digits-mlp"].seeded_model(0)
    assert found.path.shape == (5, sum(p.numel() for p in model.parameters()))
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(found.path[0], start) and not torch.equal(found.path[1], start)
    found.into(model, tmp_path, "digits-mlp")
    end = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(found.path[-1], end)
    assert found.facts == {"task": "digits-mlp", "method": "sgd", "seed": 0}
    assert row["curve"] == record(run)["curve"] | {"seconds": row["curve"]["seconds"]}


def test_workers_keep_the_runs_that_finish(tmp_path, make_run):
    runs = [make_run(), make_run(seed=1, options={"lr": 1e30})]
    rows = [u.row for u in execute(runs, workers=1, keep=tmp_path) if u.row]
    assert [row["status"] for row in rows] == ["finished", "diverged"]
    assert [f.name for f in tmp_path.iterdir()] == ["digits-mlp-sgd-0.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.pt is no checkpoint of torch"),
        (b"half a file", "a.pt is no checkpoint of torch"),
        ([1, 2], "a.pt holds no state dict of a model; torch.save"),
        ({}, "a.pt holds no state dict"),
        ({"model": {"a": 1}}, "a.pt holds no state dict"),
        (net, "a.pt is no checkpoint of torch"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    file = tmp_path / "a.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=message):
        read(file)


def test_a_truncated_file_is_refused(tmp_path):
    file = tmp_path / "a.pt"
    Checkpoint(net().state_dict()).write(file)
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(ValueError, match="is no checkpoint of torch"):
        read(file)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"does not fit the model of wine: it lacks 0.weight, and 6 more differences"),
        (
            {**net().state_dict(), "0.weight": torch.zeros(2, 4)},
            r"0.weight has shape \(2, 4\), not \(2, 3\); name",
        ),
        (
            {**net().state_dict(), "x": torch.zeros(1)},
            "it has x, which the model lacks; name the task",
        ),
    ],
)
def test_another_model_is_refused_by_its_first_difference(tmp_path, state, message):
    with pytest.raises(ValueError, match=message):
        Checkpoint(state).into(net(), tmp_path / "a.pt", "wine")
