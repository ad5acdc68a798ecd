"""Several processes end where one process ends that has all of their samples, and end alike."""

import pytest
import torch

from f3eo.processes.facts import Facts
from processes.cases import numbers
from processes.runs import RUNS, alone, data, flat, net, plain
from processes.spoilt import SPOILT
from processes.steps import exact, own
from ranks import of

pytestmark = pytest.mark.filterwarnings("ignore:F3EO knows no metric of Muon")


@pytest.mark.parametrize("name", RUNS)
def test_processes_end_where_one_process_does(group, name):
    run, found = RUNS[name], of(group, name)
    expected = alone(run, len(group))
    way = expected["weights"] - flat(net(run.bias).parameters())
    for one in found:
        for key in ("weights", "losses"):
            assert torch.equal(one[key], found[0][key])
        pairs = zip(one["state"], found[0]["state"], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
        assert one["without"] == expected["without"] and one["steps"] == expected["steps"]
    error = (found[0]["weights"] - expected["weights"]).norm() / way.norm()
    assert error < run.tolerance
    assert torch.allclose(found[0]["losses"], expected["losses"], rtol=run.tolerance, atol=0)
    if expected["trace"] is not None:
        assert torch.allclose(found[0]["trace"], expected["trace"], rtol=run.tolerance, atol=0)


SAID = {
    "not finite": ("nothing", "nothing"),
    "failing": ("failed in this step.*KeyError: 'the data of this", "KeyError: 'the data of"),
    "failing to accumulate": ("process 1 failed.*KeyError", "KeyError: 'the data of"),
    "nothing gathered": ("process 1 failed.*needs accumulate", "^RuntimeError: step\\(\\) without"),
    "clipped": ("ValueError|.grad after accumulate.*max_norm", "max_norm"),
    "without samples": ("ValueError.*all processes hold no samples",) * 2,
    "out of step": ("number of the step.*as often on every process",) * 2,
    "frozen on one": ("number of the parameters.*freeze and thaw alike",) * 2,
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_step_that_is_spoilt_on_one_process_is_made_by_none(group, name):
    import re

    found, (others, itself) = of(group, f"spoilt {name}"), SAID[name]
    model = net()
    optimizer = exact(model)
    for k in (0, 2):
        optimizer.step(plain(model), *data()[k])
    for rank, one in enumerate(found):
        assert re.search(itself if rank == 1 else others, one["said"]), one["said"]
        assert one["untouched"] and one["after"] == "nothing"
        assert one["skipped"] == (name == "not finite")
        assert torch.allclose(one["weights"], flat(model.parameters()), rtol=1e-12, atol=1e-14)
        assert torch.equal(one["weights"], found[0]["weights"])


def test_all_raise_where_one_process_meets_what_is_not_finite(group):
    for one in of(group, "raising"):
        assert one["said"].startswith("FloatingPointError") and one["untouched"]
        assert one["after"] == "nothing"


def test_the_death_of_a_process_is_an_error_on_the_others(group):
    for results in group[:-1]:
        found = results["dying"]
        assert "has died or did not call step" in found["said"] and found["untouched"]
    assert "dying" not in group[-1]


def test_a_process_that_makes_no_step_is_waited_for_until_the_timeout(group):
    for one in of(group, "silent")[:-1]:
        assert "has died or did not call step" in one["said"] and one["untouched"]


def test_a_common_factor_on_what_was_accumulated_counts(group):
    model = net()
    optimizer = exact(model)
    for batch in data()[:2]:
        optimizer.accumulate(plain(model), *batch)
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(0.5)
        optimizer.step()
    for one in of(group, "scaled"):
        assert torch.allclose(one, flat(model.parameters()), rtol=1e-12, atol=1e-14)
        assert torch.equal(one, group[0]["scaled"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other_starts", "start from different parameters"),
        ("other_states", "start from different parameters"),
        ("mini_batch", r"several processes needs an estimator that is a mean over samples"),
        ("joining", "join.*leave it out"),
        ("measured_apart", "^nothingRuntimeError: a part of `past` holds other numbers"),
    ],
)
def test_what_cannot_be_made_together_is_refused_everywhere(group, name, words):
    import re

    for one in of(group, name):
        assert re.search(words, one), one


def test_an_overflow_of_float16_on_one_process_is_skipped_by_all(group):
    """None raises, and all lower their scale, who had no samples yet, too."""
    found = of(group, "float16")
    assert 2 < found[0]["skipped"] < 12
    for one in found:
        assert one["skipped"] == found[0]["skipped"] and one["scales"] == found[0]["scales"]
        assert torch.equal(one["weights"], found[0]["weights"])
    lowest = 2.0 ** (16 - found[0]["skipped"])
    assert found[0]["scales"][-1] == lowest
    assert not torch.equal(found[0]["weights"], flat(net().float().parameters()))


def test_who_is_no_member_of_the_group_is_refused(group):
    first, *others = of(group, "no_member")
    assert first == "nothing" and all("no member of the group" in one for one in others)


def stepped(batch):
    model = net()
    exact(model).step(plain(model), *batch)
    return flat(model.parameters())


def test_a_group_of_one_goes_its_own_way(group):
    for rank, one in enumerate(of(group, "group_of_one")):
        assert torch.equal(one, stepped(own(data()[0], rank, len(group))))


def test_two_groups_go_two_ways(group):
    if len(group) == 2:
        return
    for rank, one in enumerate(of(group, "groups_of_half")):
        assert torch.allclose(one, stepped(data()[rank // 2]), rtol=1e-12, atol=1e-14)


def test_memories_join_as_one_and_a_process_without_samples_takes_part(group):
    found = of(group, "rehearsal")
    for one in found:
        assert torch.equal(one["weights"], found[0]["weights"])
        assert [d is None for d in one["drawn"]] == [True] + [False] * 5
        assert all(map(torch.equal, one["drawn"][1:], found[0]["drawn"][1:]))


def test_an_importance_of_steps_is_that_of_one_process(group):
    from f3eo import PerSample
    from f3eo.continual import Elastic, FromSteps

    model = net()
    optimizer = exact(model, past=Elastic(FromSteps(), 50.0), estimator=PerSample())
    for k, batch in enumerate(data()):
        if k == 3:
            optimizer.consolidate()
        optimizer.step(plain(model), *batch)
    found = of(group, "elastic")
    for one in found:
        assert torch.equal(one, found[0])
        assert torch.allclose(one, flat(model.parameters()), rtol=1e-8, atol=1e-9)


def test_observers_are_told_the_numbers_of_all_and_the_norms_of_all_samples(group):
    first, *others = of(group, "observed")
    model, told, world = net(), [], len(group)
    optimizer = exact(model)
    optimizer.observe(lambda record: told.append(numbers(record)))
    for k, batch in enumerate(data()[:4]):
        parts = [t.chunk(world) for t in batch]
        kept = [torch.cat([c for r, c in enumerate(p) if k < 3 or r != 1]) for p in parts]
        optimizer.step(plain(model), *kept)
    assert len(first) == 4
    for row, expected in zip(first, told, strict=True):
        assert row == pytest.approx(expected, rel=1e-12)
    assert all(one == first[2:3] for one in others)


def test_counts_of_coarse_differences_are_the_same_everywhere(group):
    assert of(group, "counters") == [{"coarse": 2, "alarms": 0}] * len(group)


def test_a_copy_steps_on_and_a_group_is_not_pickled(group):
    for weights, said in of(group, "copies"):
        assert torch.allclose(weights, stepped(data()[0]), rtol=1e-12, atol=1e-14)
        assert said.startswith("TypeError") and "processes=group" in said


def test_a_measured_step_moves_twice_the_bytes_of_the_wrapper_and_others_as_many(group):
    for one in of(group, "moved"):
        measured, between = one["steps"]
        beside = 2 * 8 + 4 + 8 * len(Facts().numbers())  # loss and trace; 4 tensors; facts
        assert between == one["plain"] + beside and beside < 0.001 * one["plain"]
        assert measured == 2 * one["plain"] + beside


def test_the_sums_of_the_wrapper_do_not_run_in_a_step_and_serve_after_it(group):
    found = of(group, "own_reducer")
    for one in found:
        assert one["inside"] == 0 and one["after"] > 0
        assert torch.equal(one["gradient"], found[0]["gradient"])


def test_a_run_of_several_processes_resumes_bit_for_bit(group):
    found = of(group, "resumed")
    for one in found:
        assert torch.equal(one["whole"], one["stopped"])
        assert torch.equal(one["whole"], found[0]["whole"])


def test_the_loop_of_the_page_has_three_changed_lines_at_most_and_keeps_processes_together(group):
    found = of(group, "page")
    for one in found:
        assert one["changed"] <= 3 and torch.equal(one["weights"], found[0]["weights"])


def test_a_process_without_samples_has_the_loss_of_the_others_in_their_type(group):
    found = of(group, "single")
    for one in found:
        assert torch.equal(one["weights"], found[0]["weights"])
        assert all(loss.dtype == torch.float32 for loss in one["losses"])


def test_some_process_has_weights_of_0_alone(group):
    run = RUNS["weightless"]
    parts = [run.parts(k, len(group), batch) for k, batch in enumerate(data())]
    assert any(bool((y == 2).all()) for step in parts for _, y, _ in step if len(y))
