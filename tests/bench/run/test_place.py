"""Where runs happen and in which precision; the GPU here is a fake that moves nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from f3eo.bench.run import train as training
from f3eo.bench.run.environment import environment
from f3eo.bench.run.place import PROCESSOR, Place, resolved
from f3eo.bench.run.row import record
from f3eo.bench.run.train import train


def measured(result):
    return {name: values for name, values in result.curve.items() if name != "seconds"}


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_auto_is_the_processor(no_gpu):
    assert resolved("auto", "float32") == resolved("cpu", "float32") == PROCESSOR == Place()


def test_with_a_gpu_auto_is_the_gpu(gpu):
    assert resolved("auto", "bf16") == Place("cuda", "bf16")
    assert resolved("cpu", "float32") == PROCESSOR
    assert resolved("cuda:1", "float32").name == "Fake 1 at cuda:1"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "gpu", "meta", ""])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(no_gpu, device):
    with pytest.raises(ValueError, match=rf"no device {device!r} here; choose from auto, cpu; "):
        resolved(device, "float32")


def test_a_gpu_too_many_is_refused_with_those_there_are(gpu):
    with pytest.raises(ValueError, match=r"no device 'cuda:2' .* auto, cpu, cuda, cuda:0, cuda:1$"):
        resolved("cuda:2", "float32")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"unknown precision 'fp8'; choose from float32, bf16"):
        resolved("cpu", "fp8")


def test_only_what_differs_from_the_default_is_named():
    assert PROCESSOR.changes == {} and PROCESSOR.suffix == ""
    assert Place("cuda").changes == {"device": "cuda"}
    assert Place("cuda", "bf16").suffix == " device=cuda precision=bf16"


def test_in_bf16_the_model_computes_in_bf16_and_all_around_it_in_float32():
    model, seen = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), []
    model[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    x = torch.randn(5, 4)
    outputs = Place(precision="bf16").outputs(model)(x)
    assert seen == [torch.bfloat16] and outputs.dtype == torch.float32
    outputs.sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert PROCESSOR.outputs(model) is model and not torch.is_autocast_enabled("cpu")


def test_a_run_in_bf16_trains_in_it_and_is_measured_in_float32(make_run, monkeypatch):
    dtypes, task = {True: set(), False: set()}, training.TASKS["digits-mlp"]

    def hooked():
        model = task.model()
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        last.register_forward_hook(lambda *call: dtypes[last.training].add(call[-1].dtype))
        return model

    monkeypatch.setitem(training.TASKS, task.name, replace(task, model=hooked))
    train(make_run(precision="bf16"))
    assert dtypes == {True: {torch.bfloat16}, False: {torch.float32}}


def test_runs_in_bf16_are_repeatable_and_near_those_in_float32(make_run):
    plain, first, second = (train(make_run(precision=p)) for p in ("float32", "bf16", "bf16"))
    assert measured(first) == measured(second) != measured(plain)
    assert first.curve["test_loss"][-1] == pytest.approx(plain.curve["test_loss"][-1], rel=0.02)


def test_on_a_gpu_model_and_data_are_there_and_the_clock_waits_for_it(gpu, make_run):
    run = make_run(device="cuda", evaluations=3)
    row = record(run)
    assert row["status"] == "finished", row["error"]
    data = training.load(run.task)
    assert all(gpu.has(t) for part in (data.train, data.test) for t in part)
    assert len(gpu.modules) == 1 and gpu.waits == 2 * 4
    assert row["machine"]["device"] == "Fake 1 at cuda" and row["config"]["device"] == "cuda"
    here = record(make_run(evaluations=3))
    assert len(gpu.modules) == 1 and gpu.waits == 2 * 4
    assert here["machine"]["device"] == "cpu" == environment()["machine"]["device"]
    assert "device" not in here["config"] and here["key"] != row["key"]


def test_batches_are_drawn_in_the_same_order_on_every_device(gpu, make_run):
    there, here = train(make_run(device="cuda")), train(make_run())
    assert measured(there) == measured(here)
