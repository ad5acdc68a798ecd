"""F3EO on models of fully_shard: 2 and 4 processes take the way of one, or refuse by name."""

import re

import pytest
import torch
from torch.optim import AdamW

import ranks
from f3eo import F3EO, DoubleBackward, PerSample, Sign
from integrations import fsdp_work
from integrations.fsdp_cases import CASES, WHOLE, train
from integrations.fsdp_models import batches, losses, model_of, weights
from ranks import of

pytestmark = [
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="torch without torch.distributed"
    ),
    pytest.mark.filterwarnings("ignore:F3EO knows no metric of Muon"),
]

EXACT = 1e-8
"""Largest difference of the weights after five steps, in units of the way that they went."""

SOME = ["mlp", "uneven rows", "transformer", "uneven batches", "micro-batches", "every"]
"""Cases of four processes; two run all."""

ALONE = ["defaults", "not_finite", "left_alone", "empty", "refusals", "autocast", "page"]
NAMES = {2: [*CASES, *ALONE, "saved", "resumed"], 4: [*SOME, *ALONE, "copies", "resumed"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of every case on two processes and on four, each group started once."""
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("F3EO_CHECKPOINT", str(checkpoint))
        for count in (2, 4):  # four go on from what two have saved
            directory = tmp_path_factory.mktemp(f"of_{count}")
            results[count] = ranks.run(fsdp_work.work, NAMES[count], count, directory)
    return results


def all_ranks(names):
    return [(count, name) for count in (2, 4) for name in NAMES[count] if name in names]


@pytest.fixture(scope="module")
def alone():
    """The runs of one process, each made once."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = train(name)
        return made[name]

    return run


def check_equal(results, one):
    """All processes have the same bits, and those of one process to `EXACT`."""
    for own in results:
        assert torch.equal(own["weights"], results[0]["weights"])
        assert (own["losses"], own["traces"]) == (results[0]["losses"], results[0]["traces"])
        assert float((own["weights"] - one["weights"]).norm()) < EXACT * one["way"]
        assert own["losses"] == pytest.approx(one["losses"], rel=1e-8)
        assert own["traces"] == pytest.approx(one["traces"], rel=1e-8)


@pytest.mark.parametrize(("count", "name"), all_ranks(CASES))
def test_several_processes_take_the_way_of_one(found, alone, count, name):
    check_equal(of(found[count], name), alone(name))


def test_copies_of_shards_count_once(found, alone):
    check_equal(of(found[4], "copies"), alone("mlp adamw"))


def test_the_way_is_not_that_of_the_base():
    model = model_of("transformer")
    start = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for batch in batches("transformer"):
        optimizer.zero_grad()
        losses(model)(*batch).mean().backward()
        optimizer.step()
    one = train("transformer")
    assert float((weights(model) - one["weights"]).norm()) > 1e-3 * one["way"]
    assert torch.equal(start, weights(model_of("transformer")))


@pytest.mark.parametrize("count", [2, 4])
def test_parts_of_the_batch_and_dropout_leave_processes_identical(found, count):
    results = of(found[count], "defaults")
    for own in results:
        assert torch.equal(own["weights"], results[0]["weights"])
        assert own["numbers"] == results[0]["numbers"]
        assert own["steps"] == 11
    assert all(x == x and x > 0 for x in results[0]["numbers"])


@pytest.mark.parametrize("count", [2, 4])
def test_a_step_that_is_not_finite_on_one_process_is_skipped_on_all(found, count):
    for own in of(found[count], "not_finite"):
        assert own == {"same": True, "skipped": 1, "moved": True}


@pytest.mark.parametrize("count", [2, 4])
def test_a_skipped_step_leaves_gradients_and_torch_as_they_were(found, count):
    for own in of(found[count], "left_alone"):
        assert own == {"kept": True, "patched": []}


@pytest.mark.parametrize("count", [2, 4])
def test_an_empty_batch_of_one_process_is_refused_on_all(found, count):
    (own,), *others = of(found[count], "empty")
    assert "one sample at least" in own
    assert all("another process" in other[0] for other in others)


@pytest.mark.parametrize("count", [2, 4])
def test_what_is_refused_names_its_cure_before_the_closure_is_called(found, count):
    for own in of(found[count], "refusals"):
        assert set(own.values()) == {True}, own


@pytest.mark.parametrize("count", [2, 4])
def test_bfloat16_takes_the_way_of_one_process_to_its_rounding(found, count):
    for own in of(found[count], "autocast"):
        assert own["error"] < 0.01 and own["forward"] is True and own["cast"] is True, own


@pytest.mark.parametrize("count", [2, 4])
def test_the_loop_of_the_page_has_three_changed_lines_and_trains(found, count):
    for own in of(found[count], "page"):
        assert own["changed"] <= 3 and own["moved"] > 0
        assert own == of(found[count], "page")[0]


def test_two_processes_resume_bit_for_bit(found):
    (saved, _), (resumed, _) = (of(found[2], name) for name in ("saved", "resumed"))
    assert (resumed["begun"], resumed["steps"]) == (3, 6)
    assert torch.equal(saved["weights"], resumed["weights"])
    assert saved["trace"] == resumed["trace"]


def test_four_processes_resume_what_two_have_saved(found):
    saved, resumed = of(found[2], "saved")[0], of(found[4], "resumed")[0]
    assert (resumed["begun"], resumed["steps"]) == (3, 6)
    model = model_of("transformer")
    start = weights(model)
    optimizer = F3EO(model, AdamW, lr=0.005, **WHOLE)
    for batch in batches("transformer", 6):
        optimizer.step(losses(model), *batch)
    way = float((weights(model) - start).norm())
    # Forward differences and AdamW: see "transformer adamw" of the cases.
    for own in (saved, resumed):
        assert float((own["weights"] - weights(model)).norm()) < 1e-7 * way


def test_estimators_that_need_one_process_are_refused_by_name():
    from f3eo.integrations.fsdp import Sharded

    with pytest.raises(NotImplementedError, match=r"pytorch#120926.*FiniteDifference\(\)"):
        Sharded(PerSample(DoubleBackward()))
    with pytest.raises(TypeError, match=re.escape("received Sign(")):
        Sharded(Sign())
    assert repr(Sharded(PerSample())) == "Sharded(PerSample())"
