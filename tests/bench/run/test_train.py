import time

import pytest
import torch

from f3eo.bench.methods import METHODS
from f3eo.bench.methods.schedule_free import ScheduleFreeStepper
from f3eo.bench.run import train as module
from f3eo.bench.run.train import batches, train
from f3eo.bench.tasks import Samples


def measured(result):
    return {name: values for name, values in result.curve.items() if name != "seconds"}


SOUND = [name for name in METHODS if name != "bsam"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True"),
    pytest.mark.filterwarnings("ignore:Learning rate changed between steps"),
]


@pytest.mark.parametrize("method", SOUND)
def test_the_same_run_is_the_same_bit_for_bit(method, make_run):
    first = train(make_run(method))
    torch.rand(11)
    torch.manual_seed(123)
    second, other = train(make_run(method)), train(make_run(method, seed=1))
    assert measured(first) == measured(second)
    assert first.curve["train_loss"] != other.curve["train_loss"]


@pytest.mark.parametrize("method", SOUND)
def test_every_method_spends_the_budget_and_no_more(method, make_run):
    result = train(make_run(method, budget=20))
    spent = result.curve["gradients"][-1]
    assert result.curve["step"][-1] == result.steps
    assert spent == pytest.approx(result.steps * result.gradient_equivalents)
    assert 20 - result.gradient_equivalents < spent <= 20


def test_a_budget_of_time_pays_for_steps_at_their_price(make_run):
    result = train(make_run("sam", budget=20, price=2.5))
    assert result.steps == 8
    assert result.curve["gradients"][-1] == 16  # the cost is counted all the same


def test_schedule_free_weights_are_measured_at_rest(make_run):
    """The average of a schedule-free method is better than the point where it takes gradients."""
    run = make_run("sgd_free", budget=60, evaluations=1, options={"lr": 3.0})
    at_rest = train(run).curve["test_loss"][-1]
    rest = ScheduleFreeStepper.rest
    try:
        ScheduleFreeStepper.rest = lambda self: None
        trained = train(run).curve["test_loss"][-1]
    finally:
        ScheduleFreeStepper.rest = rest
    assert at_rest != trained


def test_the_curve_starts_before_training_and_has_the_asked_measurements(make_run):
    curve = train(make_run(budget=24, evaluations=4)).curve
    assert curve["step"] == [0, 6, 12, 18, 24]
    assert curve["seconds"][0] < 1e-3
    assert curve["seconds"] == sorted(curve["seconds"])
    assert {len(values) for values in curve.values()} == {5}


def test_training_learns(make_run):
    curve = train(make_run(budget=120)).curve
    assert curve["test_accuracy"][-1] > 0.8 > 0.3 > curve["test_accuracy"][0]
    assert curve["test_loss"][-1] < curve["test_loss"][0] / 2


def test_measuring_is_not_on_the_clock_and_changes_nothing(make_run, monkeypatch):
    plain = train(make_run())
    measure = module.measure

    def slow(*arguments):
        time.sleep(0.2)
        return measure(*arguments)

    monkeypatch.setattr(module, "measure", slow)
    assert train(make_run()).curve["seconds"][-1] < 0.4
    often = train(make_run(evaluations=8))
    assert often.curve["test_loss"][-1] == plain.curve["test_loss"][-1]


def test_tr_f_is_the_mean_squared_norm_of_the_samples_gradients(make_run):
    run = make_run(evaluations=1)
    task, data = module.TASKS[run.task], module.load(run.task)
    model = task.seeded_model(0)
    probe = Samples(data.train.x[:5], data.train.y[:5])

    def closure(x, y):
        return task.loss(model(x), y)

    norms = []
    for i in range(5):
        loss = closure(probe.x[i : i + 1], probe.y[i : i + 1]).sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(sum(g.square().sum().item() for g in gradient))
    found = module.measure(model, task.loss, probe, data.test)
    assert found["fisher_trace"] == pytest.approx(sum(norms) / 5, rel=1e-4)


def test_a_divergence_is_a_result_with_the_curve_up_to_it(make_run):
    result = train(make_run(options={"lr": 1e30}))
    assert result.diverged
    assert result.curve["step"] == [0]


def test_a_budget_below_one_step_is_refused_with_the_cure(make_run):
    with pytest.raises(
        ValueError, match=r"1 plain gradients does not pay .* sam.*raise the budget"
    ):
        train(make_run("sam", budget=1))


def test_validation_never_touches_the_test_set(make_run, monkeypatch):
    data = module.load("digits-mlp")
    hidden = data._replace(test=Samples(torch.full_like(data.test.x, torch.nan), data.test.y))
    monkeypatch.setattr(module, "load", lambda task: hidden)
    assert not train(make_run(split="validation")).diverged
    assert train(make_run()).diverged


def test_batches_visit_every_sample_once_an_epoch():
    samples = Samples(torch.arange(10), torch.arange(10))
    stream = batches(samples, 5, torch.Generator().manual_seed(0))
    epochs = [torch.cat([next(stream).x, next(stream).x]).tolist() for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_is_the_data():
    stream = batches(Samples(torch.arange(3), torch.arange(3)), 5, torch.Generator())
    assert sorted(next(stream).x.tolist()) == [0, 1, 2]
