"""Checkpoints: what comes back is what was saved, and what is damaged is found and passed over."""

import os
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW

from f3eo import F3EO, Fixed, Sign, checkpoint
from f3eo.atomic import replaced
from f3eo.closure.likelihood import Categorical


def state(step):
    return {"step": step, "weights": torch.full((300,), float(step)), "words": ["a", None]}


def same(found, step):
    assert found is not None and found[0] == step
    assert found[1].keys() == state(step).keys()
    assert torch.equal(found[1]["weights"], state(step)["weights"])


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_last_ones_are_kept_and_the_newest_comes_back(tmp_path):
    folder = tmp_path / "not" / "there"
    assert checkpoint.load(folder) is None
    for step in (0, 9, 10, 200):
        file = checkpoint.save(folder, state(step), step)
        same(checkpoint.load(folder), step)
    assert names(folder) == ["step-000000010.0-of-1.pt", file.name]
    checkpoint.save(folder, state(201), 201, keep=3)
    assert len(names(folder)) == 3
    checkpoint.save(str(folder), state(201), 201, keep=1)
    assert names(folder) == ["step-000000201.0-of-1.pt"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_file_cut_or_changed_anywhere_is_found_and_the_one_before_is_used(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    checkpoint.save(folder, state(1), 1)
    file = checkpoint.save(folder, state(2), 2)
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        stored = content.find(torch.full((300,), 2.0).numpy().tobytes())
        assert stored > 0
        content[stored + place % 1200] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{re.escape(file.name)} in .* going on from step 1"):
        same(checkpoint.load(folder), 1)


def test_a_changed_bit_that_torch_takes_is_found(tmp_path):
    file = checkpoint.save(tmp_path, state(2), 2)
    content = bytearray(file.read_bytes())
    content[content.find(torch.full((300,), 2.0).numpy().tobytes()) + 3] ^= 1
    file.write_bytes(content)
    assert not torch.equal(torch.load(file)["weights"], state(2)["weights"])
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole on all of 1.*000002\.0"):
        checkpoint.load(tmp_path)


def test_a_file_whose_checksums_are_off_elsewhere_has_them(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        file = checkpoint.save(tmp_path, state(1), 1)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoint.is_whole(file)


def test_what_fails_while_it_is_written_leaves_the_one_before(tmp_path):
    checkpoint.save(tmp_path, state(1), 1)
    with pytest.raises(TypeError, match="generator"):
        checkpoint.save(tmp_path, {"a": torch.zeros(3), "b": (i for i in ())}, 2)
    assert names(tmp_path) == ["step-000000001.0-of-1.pt"]
    same(checkpoint.load(tmp_path), 1)


def test_a_draft_of_a_killed_process_is_no_checkpoint(tmp_path):
    file = checkpoint.save(tmp_path, state(1), 1)
    draft = file.with_name("step-000000002.0-of-1.pt.tmp")
    draft.write_bytes(file.read_bytes()[:500])
    same(checkpoint.load(tmp_path), 1)
    checkpoint.save(tmp_path, state(2), 2)
    assert not draft.exists()


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, sizes, fsync, replace = [], [], os.fsync, os.replace

    def synchronised(file):
        done.append("fsync")
        sizes.append(os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", synchronised)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    file = checkpoint.save(tmp_path, state(1), 1)
    assert sizes[0] == file.stat().st_size  # nothing was still in a buffer
    assert done == ["fsync", "replace", "fsync"]  # the content, the name, the folder


def test_nothing_is_left_in_a_buffer(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    with replaced(tmp_path / "a.txt") as file:
        file.write(b"few")
    assert sizes[0] == 3 and (tmp_path / "a.txt").read_bytes() == b"few"


def test_checkpoints_of_other_processes_are_refused(tmp_path):
    file = checkpoint.save(tmp_path, state(1), 1)
    file.rename(file.with_name("step-000000001.0-of-4.pt"))
    with pytest.raises(ValueError, match=r"no checkpoint of 1 process.*0-of-4\.pt: start as many"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("step", "keep", "message"),
    [
        (-1, 2, "step must be an integer >= 0.*received -1"),
        (1.0, 2, "step must be an integer.*received 1.0"),
        (True, 2, "step must be .*received True"),
        (1, 0, "keep must be an integer >= 1, received 0"),
        (1, None, "keep must be .*received None"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, step, keep, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path, {}, step, keep=keep)
    assert not names(tmp_path)


@pytest.mark.parametrize("base", [SGD, AdamW])
def test_a_run_goes_on_bit_for_bit(tmp_path, base):
    torch.manual_seed(2)
    x, y = torch.randn(12, 4, 5), torch.randint(3, (12, 4))

    def start():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.3), nn.Tanh(), nn.Linear(7, 3))
        generator = torch.Generator().manual_seed(1)
        options = {"every": 3, "estimator": Sign(), "strength": Fixed(0.1)}
        return model, F3EO(model, base, lr=0.02, generator=generator, **options)

    def steps(model, optimizer, first, last):
        for k in range(first, last):
            optimizer.step(lambda x, y: Categorical(model(x), y), x[k], y[k])
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    model, optimizer = start()
    steps(model, optimizer, 0, 5)
    kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path, kept | {"random": torch.get_rng_state()}, 5)
    whole = steps(model, optimizer, 5, 12)

    model, optimizer = start()
    step, found = checkpoint.load(tmp_path)
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    torch.set_rng_state(found["random"])
    assert torch.equal(steps(model, optimizer, step, 12), whole)


@pytest.fixture
def two(monkeypatch):
    """Two processes of a group by turns; what the other one has told is given by hand."""
    place = {"rank": 0, "other": ([], [], True), "groups": []}
    dist = checkpoint.dist

    def told(found, own, group=None):
        place["groups"].append(group)
        found[place["rank"]], found[1 - place["rank"]] = own, place["other"]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda group=None: place["rank"])
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(dist, "barrier", lambda group=None: place["groups"].append(group))
    monkeypatch.setattr(dist, "all_gather_object", told)
    return place


def test_processes_take_the_newest_step_that_is_whole_on_all(tmp_path, two):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step), step, group="own")
    two["other"] = [1, 2], [1, 2], True
    same(checkpoint.load(tmp_path, group="own"), 2)
    two["other"] = [1], [1], True  # killed before it had written the second
    same(checkpoint.load(tmp_path, group="own"), 1)
    assert two["groups"] == ["own"] * 4
    two["other"] = [3], [3, 4], True
    with pytest.raises(ValueError, match=r"whole on all of 2 process.*damaged here are none"):
        checkpoint.load(tmp_path)
    assert names(tmp_path) == [f"step-00000000{step}.0-of-2.pt" for step in (1, 2)]


def test_a_group_killed_at_its_first_checkpoint_starts_anew(tmp_path, two):
    two["other"] = [], [], True
    file = checkpoint.save(tmp_path, state(1), 1)
    assert checkpoint.load(tmp_path) is None
    file.write_bytes(b"")  # no kill does that
    with pytest.raises(ValueError, match="damaged here are step-000000001"):
        checkpoint.load(tmp_path)


def test_each_process_drops_its_own_files(tmp_path, two):
    for two["rank"] in (0, 1):
        checkpoint.save(tmp_path, state(1), 1)
    checkpoint.save(tmp_path, state(2), 2, keep=1)
    assert names(tmp_path) == ["step-000000001.0-of-2.pt", "step-000000002.1-of-2.pt"]
