"""`f3eo cost` on another device or in another precision; the GPU is a fake that moves nothing."""

import io
import subprocess
import time

import torch
from rich.console import Console

from f3eo.bench.price import MODELS, VARIANTS, Plan, footprint, measure_cost
from f3eo.bench.price import memory as in_a_process
from f3eo.bench.price.timing import clock_for
from f3eo.bench.price.work import start
from f3eo.bench.run.place import Place


def test_on_a_gpu_module_and_batch_are_there_and_in_bf16_the_model_is(gpu):
    work = start(MODELS["mlp"], VARIANTS["gradient"], batch=8, place=Place("cuda", "bf16"))
    assert gpu.has(work.x) and gpu.has(work.y) and gpu.modules == [work.module]
    here = start(MODELS["mlp"], VARIANTS["gradient"], batch=8, place=Place(precision="bf16"))
    seen = []
    here.module.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    assert here.step().dtype == torch.float32 and seen == [torch.bfloat16]


def test_all_that_is_timed_is_on_the_gpu(gpu):
    plan = Plan(models=("mlp",), methods=("sam",), rounds=1, memory=False, device="cuda")
    outcome = measure_cost(plan, Console(file=io.StringIO()))
    assert {row["machine"]["device"] for row in outcome.rows} == {"Fake 1 at cuda"}
    assert len(gpu.modules) == 2 and gpu.waits == 2 * 2 * (1 + 2)


def test_the_clock_of_a_gpu_is_the_wall_once_it_is_done(gpu):
    clock = clock_for(1, Place("cuda"))
    begin = time.perf_counter()
    assert begin <= clock() <= time.perf_counter() and gpu.waits == 1
    assert clock_for(1, Place(precision="bf16")) is time.process_time


def test_memory_on_a_gpu_is_the_growth_of_torchs_peak(gpu, monkeypatch):
    held, peak, asked = [100, 100], [0], []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda d: peak.append(held[-1]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d: held[-1])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: asked.append(d) or peak[-1])
    assert footprint.allocated_growth(lambda: peak.append(350), "cuda:1") == 250
    place = Place("cuda")
    found = footprint.footprint(MODELS["mlp"], VARIANTS["gradient"], place)
    assert found == 0 and asked == ["cuda:1", "cuda"]  # nothing grew: the fake has no memory


def test_the_process_that_weighs_is_told_where(monkeypatch):
    asked = []

    def ran(words, **options):
        asked.append(words[-5:])
        return subprocess.CompletedProcess(words, 0, "7", "")

    monkeypatch.setattr(in_a_process.subprocess, "run", ran)
    assert in_a_process.measure_memory("mlp", "sam", 2, Place("cuda:1", "bf16")) == 7
    assert asked == [["mlp", "sam", "2", "cuda:1", "bf16"]]
