"""Which checkpoints of a Trainer count as whole."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("safetensors")
from safetensors.torch import save_file

from f3eo.integrations.trainer_checkpoints import last_checkpoint


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints with a file of every kind."""
    for step in (10, 9):
        one = tmp_path / f"checkpoint-{step}"
        one.mkdir()
        save_file({"w": torch.zeros(9), "v": torch.ones(2)}, one / "model.safetensors")
        for name in ("optimizer.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"a": torch.zeros(5)}, one / name)
        for name in ("config.json", "trainer_state.json"):
            (one / name).write_text('{"global_step": 10}')
        (one / "README.md").write_text("no one reads it")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-99").write_text("no folder")
    return tmp_path


def test_the_newest_whole_checkpoint_is_taken(folder, tmp_path):
    assert last_checkpoint(folder) == str(folder / "checkpoint-10")
    assert last_checkpoint(str(folder)) == str(folder / "checkpoint-10")
    assert last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.pt", "rng_state.pth", "config.json", "trainer_state.json"],
)
@pytest.mark.parametrize("part", [0.0, 0.4, 0.95])
def test_a_cut_file_costs_its_checkpoint_alone(folder, name, part):
    file = folder / "checkpoint-10" / name
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    said = re.escape(f"checkpoint-10 has a damaged {name}") + ".*going on from .*checkpoint-9"
    with pytest.warns(UserWarning, match=said):
        assert last_checkpoint(folder) == str(folder / "checkpoint-9")


def test_a_checkpoint_without_the_file_written_last_is_passed_over(folder):
    (folder / "checkpoint-10/trainer_state.json").unlink()
    with pytest.warns(UserWarning, match=r"checkpoint-10 lacks trainer_state\.json"):
        assert last_checkpoint(folder) == str(folder / "checkpoint-9")


def test_with_several_processes_the_random_states_of_all_are_wanted(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for step, count in ((10, 1), (9, 2)):
        for rank in range(count):
            file = folder / f"checkpoint-{step}"
            shutil.copy(file / "rng_state.pth", file / f"rng_state_{rank}.pth")
    with pytest.warns(UserWarning, match=r"checkpoint-10 lacks rng_state_1\.pth"):
        assert last_checkpoint(folder) == str(folder / "checkpoint-9")


def test_where_none_is_whole_an_error_says_so_and_a_first_one_that_was_cut_is_no_loss(folder):
    for step in (9, 10):
        (folder / f"checkpoint-{step}/optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole: .*bring a copy back"):
        last_checkpoint(folder)
    shutil.rmtree(folder / "checkpoint-9")
    with pytest.warns(UserWarning, match="checkpoint-10 has a damaged .*starting anew"):
        assert last_checkpoint(folder) is None


def test_a_trainer_asked_to_resume_takes_it(folder):
    mixin = pytest.importorskip("f3eo.integrations.transformers").F3EOMixin

    class Base:
        def train(self, *words, **options):
            return words, options

    class Trainer(mixin, Base):
        def __init__(self, place):
            self.args = SimpleNamespace(output_dir=str(place))

    (folder / "checkpoint-10/optimizer.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-10 has a damaged"):
        found = Trainer(folder).train(resume_from_checkpoint=True)
    assert found == ((str(folder / "checkpoint-9"),), {})
    assert Trainer(folder / "none").train(True) == ((True,), {})  # the Trainer's own refusal
    assert Trainer(folder).train() == ((None,), {})
    assert Trainer(folder).train("a place", trial=3) == (("a place",), {"trial": 3})
