import copy
from dataclasses import replace

import pytest
import torch

from bench.continual.blobs import BLOBS, TEST, TRAIN, clouds, made, stages
from f3eo.bench.continual.learners import PEERS, Learner
from f3eo.bench.continual.run import train as module
from f3eo.bench.continual.run.judge import at_rest, judge
from f3eo.bench.continual.run.order import ordered
from f3eo.bench.continual.run.train import train
from f3eo.bench.continual.streams import STREAMS, Stage


def measured(result):
    return result.scores, result.losses, result.points, result.unseen, result.steps, result.error


@pytest.mark.parametrize("learner", ["sgd", "f3eo", "replay"])
def test_equal_runs_are_equal_to_the_bit_and_another_seed_is_another_run(blobs, learner):
    torch.manual_seed(1)
    first = measured(train(made(learner)))
    torch.manual_seed(2)
    assert measured(train(made(learner))) == first
    assert measured(train(made(learner, seed=1)))[1] != first[1]


def test_the_shape_of_a_result(blobs):
    told = []
    result = train(made(), told.append)
    assert [len(row) for row in result.scores] == [len(row) for row in result.losses] == [3] * 4
    assert result.steps == [6, 6, 6] and not result.error and result.seconds > 0
    assert {name: len(values) for name, values in result.structure.items()} == {
        "trace": 3, "relative_trace": 3, "accuracy": 3, "complexity": 3, "free_energy": 3,
    }  # fmt: skip
    met = [(one["stage"], one["after"], one["shots"]) for one in result.unseen]
    assert met == [("cloud 7", n, shots) for n in (1, 3) for shots in (None, 5)]
    assert told == sorted(told) and told[-1] == 1.0


def test_training_raises_the_score_of_the_stage_that_is_trained(blobs):
    result = train(made(epochs=20, options={"lr": 0.1}))
    for j in range(3):
        assert result.scores[j + 1][j] > 0.7
        assert result.losses[j + 1][j] < result.losses[j][j]


def test_scores_are_those_of_the_model_on_every_test_set(blobs):
    result = train(made(stages=1))
    model = BLOBS.seeded_model(0)
    model.eval()
    x, y = clouds(0, 0).test
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(x), y).item()
        score = (model(x).argmax(1) == y).double().mean().item()
    assert result.scores[0] == [score] and result.losses[0] == pytest.approx([losses])


def test_test_samples_may_be_fewer_those_of_newcomers_too(blobs, monkeypatch):
    sizes, adapted = [], []
    monkeypatch.setattr(
        module, "judge", lambda *args: sizes.append(len(args[-1].y)) or judge(*args)
    )
    monkeypatch.setattr(
        module,
        "newcomers",
        lambda model, stream, unseen, *args: adapted.extend(len(s.test().y) for s in unseen) or [],
    )
    whole = train(made(learner="sgd", tests=None))
    assert set(sizes) == set(adapted) == {TEST}
    sizes.clear(), adapted.clear()
    part = train(made(learner="sgd", tests=7))
    assert set(sizes) == set(adapted) == {7}
    assert part.points == whole.points and part.scores != whole.scores


def test_measuring_changes_nothing_of_the_training(blobs, monkeypatch):
    usual = train(made("replay"))
    monkeypatch.setattr(module, "structure", lambda *_: {})
    monkeypatch.setattr(module, "newcomers", lambda *_: [])
    monkeypatch.setattr(module.Result, "structure", {})
    assert train(made("replay")).losses == usual.losses


def test_a_measured_model_is_as_it_was():
    model = BLOBS.seeded_model(0)
    model[1].eval()  # a mode of its own
    modes = [m.training for m in model.modules()]
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with at_rest(model):
        assert not any(m.training for m in model.modules())
        torch.rand(3)
        judge(model, BLOBS.loss, BLOBS.score, clouds(0, 0).test)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Noting(Learner):
    """Takes no step; notes what it is called with."""

    optimizers = ()

    def __init__(self, calls):
        self.calls = calls

    def begin(self, stage, steps):
        self.calls.append(("begin", stage, steps))

    def step(self, closure, x, y):
        self.calls.append(("step", x))
        return torch.tensor(1.0)

    def end(self, closure, batches):
        self.calls.append(("end", [x for x, _ in batches], [x for x, _ in batches]))


@pytest.fixture
def noted(blobs, monkeypatch):
    calls = []
    peer = replace(PEERS["sgd"], build=lambda model, options, seed: Noting(calls))
    monkeypatch.setitem(PEERS, "sgd", peer)
    return calls


def test_a_stage_begins_steps_and_ends_with_every_sample_once(noted):
    train(made(epochs=2, stages=2, samples=37))
    kinds = [call[0] for call in noted]
    assert kinds == 2 * ["begin", *6 * ["step"], "end"]  # 3 whole batches of 37 samples, twice
    assert noted[0] == ("begin", 0, 6) and noted[8] == ("begin", 1, 6)
    stepped, (_, ended, again) = [call[1] for call in noted[1:7]], noted[7]
    assert len(torch.cat(ended)) == len(torch.cat(ended).unique(dim=0)) == 30
    assert torch.equal(torch.cat(stepped[:3]), torch.cat(ended))
    assert torch.equal(torch.cat(ended), torch.cat(again))  # may be swept twice


def test_equal_time_takes_the_first_of_the_same_batches(noted):
    train(made(stages=2))
    steps = [call[1] for call in noted if call[0] == "step"]
    noted.clear()
    train(made(stages=2, price=2.5))
    fewer = [call[1] for call in noted if call[0] == "step"]
    assert len(steps) == 12 and len(fewer) == 4  # ⌊6/2.5⌋ a stage
    for one, other in zip(fewer, steps[:2] + steps[6:8], strict=True):
        assert torch.equal(one, other)
    assert len(noted[-1][1]) == 2  # the end gets what was trained on


@pytest.mark.parametrize(
    ("price", "epochs", "steps"),
    [(None, 1, 6), (1.0, 1, 6), (0.5, 1, 6), (1.7, 1, 3), (1.7, 4, 14), (6.0, 1, 1), (50.0, 1, 1)],
)
def test_steps_are_the_epoch_over_the_price_rounded_down_but_one(price, epochs, steps):
    assert made(price=price, epochs=epochs).steps(69) == steps


def test_every_stage_of_every_seed_has_an_order_of_its_own(blobs, monkeypatch):
    drawn = []

    def noted(samples, size, steps, generator):
        drawn.append(ordered(samples, size, steps, generator))
        return drawn[-1]

    monkeypatch.setattr(module, "ordered", noted)
    for seed in (0, 1):
        train(made(seed=seed, stages=2))
    orders = {tuple(torch.cat(data.chosen).tolist()) for data in drawn}
    assert len(drawn) == len(orders) == 4


def test_batches_cover_an_epoch_once_and_later_epochs_in_another_order():
    samples = clouds(0, 0).train
    data = ordered(samples, 25, 4, torch.Generator().manual_seed(0))
    sizes = [len(y) for _, y in data]
    assert sizes == [25] * 4 == [len(p) for p in data.chosen] and len(data) == 4
    assert len(torch.cat(data.chosen[:2]).unique()) == 50
    assert not torch.equal(data.chosen[0], data.chosen[2])
    assert len(ordered(samples, 100, 1, torch.Generator()).chosen[0]) == TRAIN


def untouchable():
    """Samples that must not be looked at."""

    class Guard:
        def __getattr__(self, name):
            raise AssertionError(f"a trial looked at {name} of a test set")

        def __iter__(self):
            raise AssertionError("a trial looked at a test set")

    return Guard()


def test_a_trial_is_judged_on_held_out_training_samples_and_never_on_a_test_set(blobs, monkeypatch):
    def guarded(seed):
        return [
            Stage(s.name, lambda s=s: s.load()._replace(test=untouchable()), untouchable)
            for s in stages(seed)
        ]

    monkeypatch.setitem(STREAMS, "blobs", replace(BLOBS, stages=guarded))
    result = train(made(kind="trial", seed=1000, stages=2))
    assert [len(row) for row in result.scores] == [2, 2, 2] and not result.error
    assert {score * TRAIN / 5 % 1 for row in result.scores for score in row} == {0.0}
    assert result.steps == [4, 4]  # of 48 samples
    assert result.points == [] and result.unseen == []
    with pytest.raises(AssertionError, match="a trial looked at"):
        train(made(stages=2))
    assert TEST != TRAIN / 5


def test_a_run_that_diverges_keeps_what_it_measured(blobs, monkeypatch):
    usual = train(made())
    build = PEERS["sgd"].build

    def lost(model, options, seed):
        learner = build(model, options, seed)

        def begin(stage, steps):
            if stage == 1:
                learner.optimizers[0].param_groups[0]["lr"] = 3e38

        learner.begin = begin
        return learner

    monkeypatch.setitem(PEERS, "sgd", replace(PEERS["sgd"], build=lost))
    result = train(made())
    assert "not finite, in stage 2 of 3" in result.error
    assert result.scores == usual.scores[:2] and result.steps == [6]
    assert len(result.points) == 1
