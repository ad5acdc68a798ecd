import json
import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from f3eo import DoubleBackward, cli
from f3eo.bench.methods import METHODS
from f3eo.bench.methods.method import Stepper
from f3eo.bench.price import MODELS, VARIANTS, Plan
from f3eo.bench.price import memory as in_a_process
from f3eo.bench.price.ratios import quartiles, time_ratios
from f3eo.bench.price.row import rows
from f3eo.bench.price.table import table
from f3eo.bench.price.timing import Effort, Runner, Timing, clock_for, interleave, time_rounds
from f3eo.bench.price.variants import Variant
from f3eo.bench.price.work import start
from f3eo.closure.problem import Problem

MIB = 2**20
KEYS = {
    "model",
    "method",
    "batch",
    "time_ratio",
    "time_ratio_low",
    "time_ratio_high",
    "memory_ratio",
    "gradient_ms",
}


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs `f3eo cost` in this process; returns its exit code and what it wrote."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", "cost", *map(str, words)])
        try:
            code = cli.main()
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        return code, " ".join((streams.out + streams.err).split())

    return run


class Scripted(Stepper):
    """Takes no step; gives or raises what it is told."""

    optimizers = ()
    gradient_equivalents = 1.0

    def __init__(self, results):
        self.results = iter(results)

    def step(self, closure, x, y):
        result = next(self.results)
        if isinstance(result, BaseException):
            raise result
        return torch.tensor(result)


def scripted(monkeypatch, name, results):
    method = replace(METHODS["sgd"], build=lambda model, options, seed: Scripted(results))
    monkeypatch.setitem(VARIANTS, name, Variant(name, "scripted", method, {}))


class Bench:
    """Runners that write down who ran, on a clock that only they move."""

    def __init__(self, **seconds):
        self.seconds, self.now, self.ran = seconds, 0.0, []

    def runner(self, name, steps=1):
        def step():
            self.ran.append(name)
            self.now += self.seconds[name]
            return 0.5

        return Runner(step, steps)

    def time(self, runners, rounds, seed=0, warmup=2):
        timing = Timing()
        rng = random.Random(seed)
        counts = interleave(runners, timing, generator=rng, warmup=warmup, clock=lambda: self.now)
        for count in counts:
            if count == rounds:
                break
        return timing


def test_each_round_runs_everything_once_in_an_order_of_its_own():
    bench = Bench(a=1.0, b=2.0, c=4.0)
    timing = bench.time({name: bench.runner(name) for name in "abc"}, rounds=20, warmup=3)
    assert timing.rounds == [{"a": 1.0, "b": 2.0, "c": 4.0}] * 20
    orders = [tuple(bench.ran[i : i + 3]) for i in range(0, len(bench.ran), 3)]
    assert len(orders) == 23
    assert all(sorted(order) == list("abc") for order in orders)
    assert len(set(orders)) == 6

    again = Bench(a=1.0, b=2.0, c=4.0)
    again.time({name: again.runner(name) for name in "abc"}, rounds=20, warmup=3)
    assert again.ran == bench.ran


def test_steps_of_one_measurement_count_their_mean():
    bench = Bench(a=1.0)
    durations = iter([1.0, 3.0] * 3)

    def uneven():
        bench.now += next(durations)
        return 0.5

    timing = bench.time({"a": bench.runner("a"), "u": Runner(uneven, 2)}, rounds=2, warmup=1)
    assert timing.rounds == [{"a": 1.0, "u": 2.0}] * 2


def test_what_fails_is_left_out_from_then_on():
    bench = Bench(a=1.0)
    losses = iter([0.5, float("nan")])
    runners = {"a": bench.runner("a"), "n": Runner(lambda: next(losses))}
    timing = bench.time(runners, rounds=3, warmup=0)
    assert [sorted(seconds) for seconds in timing.rounds] == [["a", "n"], ["a"], ["a"]]
    assert timing.errors == {"n": "ArithmeticError: the loss became nan"}


def test_timing_ends_where_everything_has_failed():
    timing = Bench().time({"n": Runner(lambda: float("inf"))}, rounds=3)
    assert timing.errors == {"n": "ArithmeticError: the loss became inf"}


def test_waiting_for_a_turn_does_not_count_with_one_thread():
    assert clock_for(1) is time.process_time and clock_for(2) is time.perf_counter
    runners = {"wait": Runner(lambda: time.sleep(0.05) or 0.5)}
    timing = Timing()
    next(interleave(runners, timing, generator=random.Random(0), warmup=0, clock=clock_for(1)))
    assert timing.rounds[0]["wait"] < 0.02


@pytest.mark.parametrize(
    "effort, ends",
    [
        (Effort(3, 3), {(3, 0.0)}),
        (Effort(2, 4, 1.0), {(2, 1.0), (3, 1.0), (4, 0.0)}),
        (Effort(2, seconds=1.0), {(2, 1.0), (9, 1.0)}),
    ],
)
def test_timing_ends_after_the_fewest_rounds_at_the_earliest(effort, ends):
    for rounds, seconds in {(1, 9.0), (1, 0.0), (2, 0.5)} | ends:
        assert effort.is_enough(rounds, seconds) == ((rounds, seconds) in ends)


def test_rounds_are_timed_until_they_are_enough():
    bench, timing, told = Bench(a=1.0), Timing(), []
    time_rounds(
        {"a": bench.runner("a")},
        timing,
        Effort(2, 3),
        generator=random.Random(0),
        clock=lambda: bench.now,
        begin=time.monotonic(),
        tell=lambda rounds, seconds: told.append(rounds),
    )
    assert timing.rounds == [{"a": 1.0}] * 3 and told == [0, 0, 1, 2, 3]


def test_quartiles_by_hand():
    assert quartiles([5, 1, 4, 2, 3]) == (3, 2, 4)
    assert quartiles([1, 2, 3, 10]) == (2.5, 1.75, 4.75)
    assert quartiles([7]) == (7, 7, 7)


def test_ratios_are_taken_within_a_round():
    rounds = [{"gradient": 1.0, "sam": 2.0}, {"gradient": 10.0, "sam": 30.0}, {"gradient": 1.0}]
    assert time_ratios(rounds, "sam", "gradient") == [2.0, 3.0]
    timing = Timing([*rounds, {"gradient": 2.0, "sam": 8.0}], {"every": "ValueError: no"})
    made = rows(
        MODELS["gpt"],
        ["gradient", "sam", "every", "batch"],
        timing,
        {"gradient": 20 * MIB, "sam": 50 * MIB},
        {"batch": "out of memory"},
    )
    assert all(row.keys() >= KEYS for row in made)
    plain, sam, every, batch = made
    assert (plain["time_ratio"], plain["memory_ratio"], plain["gradient_ms"]) == (1, 1, 1500)
    assert (sam["time_ratio_low"], sam["time_ratio"], sam["time_ratio_high"]) == (2.5, 3, 3.5)
    assert (sam["memory_ratio"], sam["memory_mib"], sam["rounds"]) == (2.5, 50, 3)
    assert (sam["model"], sam["batch"], sam["error"]) == ("gpt", 12, None)
    assert (every["time_ratio"], every["error"]) == (None, "ValueError: no")
    assert batch["error"] == "memory: out of memory"
    json.dumps(made)
    assert [len(list(column.cells)) for column in table(made).columns] == [4] * 5


def test_memory_too_small_to_tell_has_no_ratio():
    assert in_a_process.ratio(20 * MIB, 8 * MIB) == 2.5
    assert in_a_process.ratio(20 * MIB, 8 * MIB - 1) is None
    assert in_a_process.ratio(20 * MIB, None) is None


def test_peak_growth_is_what_was_allocated(monkeypatch):
    program = """
import torch
from f3eo.bench.price.footprint import peak_growth
torch.ones(2**25), "a peak before that must not count, nor be used again"
print([peak_growth(lambda: torch.ones(n * 2**18)) for n in (0, 32, 96)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**in_a_process.os.environ, **in_a_process.ENVIRONMENT},
    )
    nothing, small, large = json.loads(done.stdout)
    assert nothing < MIB
    assert small == pytest.approx(32 * MIB, abs=MIB)
    assert in_a_process.ratio(large, small) == pytest.approx(3, rel=0.05)


def test_a_method_is_weighed_in_a_process_of_its_own():
    assert 0 <= in_a_process.measure_memory("mlp", "gradient", 1) < 8 * MIB


@pytest.mark.parametrize(
    "end, message",
    [
        ("echo first >&2; echo ValueError: last >&2; exit 1", "^ValueError: last$"),
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "signal 9: out of memory?"),
    ],
)
def test_a_process_that_fails_gives_its_last_words(tmp_path, monkeypatch, end, message):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{end}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match=message):
        in_a_process.measure_memory("mlp", "gradient", 1)


@pytest.mark.parametrize("model", MODELS)
def test_models_give_a_loss_for_each_target_and_the_same_for_each_seed(model):
    model = MODELS[model]
    x, y = model.data(2, seed=0)
    module, twin = model.build(seed=0), model.build(seed=0)
    losses = model.losses(module, x, y)
    assert losses.shape == y.shape and len(y) == 2
    assert torch.equal(losses, model.losses(twin, *model.data(2, seed=0)))
    losses.mean().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_residual_networks_have_the_layers_of_their_names():
    for name, layers in (("resnet", 8), ("resnet20", 20)):
        modules = list(MODELS[name].build(0).modules())
        counted = [m for m in modules if isinstance(m, nn.Linear)]
        counted += [m for m in modules if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(counted) == layers


@pytest.mark.parametrize("method", VARIANTS)
def test_methods_step_with_the_same_loss(method):
    part = {"partial-sam": 2}.get(method, 8)  # of 8 samples, before the step
    plain = start(MODELS["mlp"], VARIANTS["gradient"], batch=8)
    plain = replace(plain, x=plain.x[:part], y=plain.y[:part])
    work = start(MODELS["mlp"], VARIANTS[method], batch=8)
    before = [p.detach().clone() for p in work.module.parameters()]
    assert torch.allclose(work.step(), plain.step())
    moved = zip(before, work.module.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_every_variant_is_a_method_of_the_registry_with_other_options(variant):
    method = METHODS[variant.method.name]
    assert variant.options.keys() <= method.defaults.keys()
    assert not variant.options.keys() & method.idle(method.options(variant.options)).keys()
    assert variant.options["lr"] == 1e-4
    built_otherwise = ("checked", "monitor", "monitor-plain")
    assert (variant.method is method) == (variant.name not in built_otherwise)


def test_the_rows_are_what_they_are_called():
    module = MODELS["mlp"].build(0)
    estimators = {
        n: v.build(module).optimizer.estimator
        for n, v in VARIANTS.items()
        if v.name in ("batch", "exact", "compiled-exact", "checked", "fraction")
    }
    assert isinstance(estimators["batch"].engine, DoubleBackward)
    assert isinstance(estimators["exact"].engine, DoubleBackward)
    assert isinstance(estimators["compiled-exact"].estimator.engine, DoubleBackward)
    problem = Problem(lambda: torch.zeros(1), (torch.zeros(1),), [], [], module)
    for name, checks in (("checked", [True] * 3), ("fraction", [True, False, False])):
        assert [estimators[name]._watch.due(problem) for _ in range(3)] == checks


def test_the_peers_have_the_options_they_need():
    for name in ("partial-sam", "msam", "ema", "schedule-free", "last-layer"):
        module = MODELS["mlp"].build(0)
        stepper = VARIANTS[name].build(module)
        (optimizer,) = stepper.optimizers or (stepper.optimizer.optimizer,)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_the_plain_gradient_always_comes_along_and_first():
    assert Plan(methods=("sam", "sign", "sam")).contenders == ["gradient", "sam", "sign"]


def test_two_rounds_from_the_command_line(typed, tmp_path):
    file = tmp_path / "cost.json"
    threads = torch.get_num_threads()
    words = ["--models", "mlp", "--methods", "sam", "--rounds", 2, "--no-memory"]
    words += ["--device", "cpu", "--precision", "bf16"]
    code, text = typed(*words, "--json", file)
    assert code == 0 and torch.get_num_threads() == threads
    plain, sam = json.loads(file.read_text())
    assert plain.keys() == sam.keys() and plain.keys() >= KEYS
    assert (plain["model"], plain["method"], plain["batch"]) == ("mlp", "gradient", 256)
    assert (plain["precision"], plain["machine"]["device"]) == ("bf16", "cpu")
    assert (plain["time_ratio"], plain["rounds"], plain["machine"]["threads"]) == (1, 2, 1)
    assert sam["time_ratio_low"] <= sam["time_ratio"] <= sam["time_ratio_high"]
    assert sam["gradient_ms"] == plain["gradient_ms"] > 0
    assert sam["memory_ratio"] is plain["memory_mib"] is None
    assert "784-256-256-10" in text and "2 rounds, 1 thread" in text
    assert f"{sam['time_ratio']:.2f}" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["--models", "nope"], "unknown model 'nope'; choose from mlp, resnet, resnet20, gpt"),
        (
            ["--methods", "adam"],
            "unknown method 'adam'; choose from gradient, sam, partial-sam, msam",
        ),
        (["--rounds", 0], "rounds must be at least 1, got 0"),
        (["--threads", 0], "threads must be at least 1, got 0"),
        (["--device", "cuda:9"], "no device 'cuda:9' here; choose from auto, cpu"),
        (["--seconds", 0], "seconds must be more than 0, got 0"),
        (["--json", "no/such/file"], "json must be a file in a folder that exists, got no/such"),
    ],
)
def test_bad_input_is_an_error_that_names_the_cure(typed, words, message):
    code, text = typed(*words)
    assert code == 2 and message in text


def test_help_explains_every_option(typed):
    code, text = typed("--help")
    assert code == 0
    options = ("models", "methods", "rounds", "seconds", "threads", "memory", "json", "device")
    for option in (*options, "precision"):
        assert f"--{option}" in text
    for phrase in ("gpt256", "decoupled", "plain gradient", "fresh process", "Ctrl-C"):
        assert phrase in text


def test_a_method_that_fails_is_a_row_with_its_error(typed, tmp_path, monkeypatch):
    file = tmp_path / "cost.json"
    scripted(monkeypatch, "broken", [RuntimeError("no rule for this")])
    words = ["--models", "mlp", "--methods", "broken", "sam", "--rounds", 2, "--no-memory"]
    code, text = typed(*words, "--json", file)
    assert code == 0 and "broken: RuntimeError: no rule for this" in text
    _, broken, sam = json.loads(file.read_text())
    assert broken["time_ratio"] is None and broken["error"] == "RuntimeError: no rule for this"
    assert sam["time_ratio"] > 0 and sam["error"] is None


def test_ctrl_c_prints_what_is_finished(typed, tmp_path, monkeypatch):
    file = tmp_path / "cost.json"
    scripted(monkeypatch, "cut", [0.5] * 5 + [KeyboardInterrupt()])
    words = ["--models", "mlp", "vit", "--methods", "cut", "--seconds", 600, "--json", file]
    code, text = typed(*words)
    assert code == 130 and "784-256-256-10" in text and "ViT" not in text
    assert [row["rounds"] for row in json.loads(file.read_text())] == [3, 3]
