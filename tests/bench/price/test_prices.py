import json
import time
from dataclasses import replace

import pytest
import torch

from f3eo.bench.execute.disk import Damaged
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.compare import Comparison
from f3eo.bench.plan.spaces import TUNED, space
from f3eo.bench.price import prices as module
from f3eo.bench.price import step_times as timed
from f3eo.bench.price.prices import FREE, prices
from f3eo.bench.price.ratios import Quartiles
from f3eo.bench.price.step_times import PLAIN, Times, step_times
from f3eo.bench.run.place import PROCESSOR, Place
from f3eo.bench.run.train import load
from f3eo.bench.tasks.data import FOLDER


def runs(*methods):
    return Comparison(tasks=("digits-mlp",), methods=methods, seeds=1).runs()


def test_a_step_that_takes_longer_costs_more(monkeypatch):
    steps = timed._stepping

    def slow(task, method, options, place):
        step = steps(task, method, options, place)

        def slower():
            end = time.process_time() + (0.003 if method == "adam" else 0.001)
            while time.process_time() < end:
                pass
            return step()

        return slower

    monkeypatch.setattr(timed, "_stepping", slow)
    methods = {name: (name, METHODS[name].options()) for name in ("sgd", "adam")}
    plain, found = step_times("digits-mlp", methods, rounds=5)
    assert plain.median >= 0.001
    assert found["sgd"].median < found["adam"].median and found["adam"].median > 1.5
    assert PLAIN not in found


def test_two_gradients_take_longer_than_one_and_failures_are_left_out():
    before = torch.get_rng_state()
    methods = {name: (name, METHODS[name].options()) for name in ("sgd", "lbfgs", "bsam")}
    methods["wrong"] = ("sam", {"lr": "x"})
    _, found = step_times("digits-mlp", methods, rounds=3)
    assert set(found) == {"sgd", "lbfgs"}
    assert found["lbfgs"].median > 2 * found["sgd"].median
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def asked(monkeypatch):
    """Replaces the measuring: what is asked for is noted here; bsam cannot be timed."""
    noted = []

    def measured(task, methods, place):
        noted.append((task, [method for method, _ in methods.values()]))
        found = {kind: Quartiles(1.23456, 1, 2) for kind in methods if " bsam" not in kind}
        return Times(Quartiles(0.0012, 0, 0), found)

    monkeypatch.setattr(module, "step_times", measured)
    return noted


def test_prices_are_kept_and_only_new_ones_measured(tmp_path, asked):
    path = tmp_path / "prices.json"
    first = prices(runs("sgd", "bsam"), path)
    assert list(first.values()) == [1.235, 1.0]
    again = prices(runs("sgd", "bsam", "sam"), path)
    assert list(again.values()) == [1.235, 1.0, 1.235]
    assert asked == [("digits-mlp", ["sgd", "bsam"]), ("digits-mlp", ["sam"])]
    kept = json.loads(path.read_text())
    assert kept["plain_ms"] == {"digits-mlp": 1.2}
    assert {entry["method"] for entry in kept["prices"].values()} == {"sgd", "bsam", "sam"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"prices": 3}', b'{"prices": {"digits-mlp sgd": {}}}'],
)
def test_damaged_prices_are_named_and_stay(tmp_path, asked, content):
    path = tmp_path / "prices.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=f"{path} is damaged .*; move it away: prices are then"):
        prices(runs("sgd"), path)
    assert path.read_bytes() == content and not asked


def test_what_is_timed_later_is_put_on_the_scale_of_the_same_method(tmp_path, monkeypatch):
    """On a second machine all steps take three times as many gradients, old and new ones."""
    path, noted = tmp_path / "prices.json", []

    def machine(factor):
        def measured(task, methods, place):
            noted.append(list(methods))
            cost = {kind: factor * (2.0 if "every=1" in kind else 1.5) for kind in methods}
            found = {kind: Quartiles(c, c, 2 * c) for kind, c in cost.items()}
            return Times(Quartiles(1e-3, 0, 0), found)

        monkeypatch.setattr(module, "step_times", measured)

    machine(1.0)
    (usual,) = prices(runs("f3eo"), path)
    machine(3.0)
    (run,) = runs("f3eo")
    later = [replace(run, options=run.options | {"every": 1}), *runs("f3eo", "sgd")]
    found = prices(later, path)
    (new,) = [kind for kind in found if "every=1" in kind]
    assert noted[1] == [new, "digits-mlp sgd", usual]
    assert found == {new: 2.0, usual: 1.5, "digits-mlp sgd": 4.5}  # nothing to compare sgd with
    kept = json.loads(path.read_text())["prices"]
    assert kept[new]["quartiles"] == [2.0, 4.0] and kept[new]["scale"] == 0.333
    assert "scale" not in kept["digits-mlp sgd"]


def test_a_price_holds_for_all_learning_rates_but_not_for_other_work(tmp_path, asked):
    def price(method, **options):
        run = runs(method)[0]
        return prices([replace(run, options=run.options | options)], tmp_path / "prices.json")

    price("f3eo")
    price("f3eo", lr=7.0, weight_decay=0.0, momentum=0.0, strength="cap", ratio=0.7, value=0.7)
    assert len(asked) == 1
    different = {"fraction": 1.0, "every": 2, "base": "adamw", "estimator": "sign", "ratio": 0}
    for number, option in enumerate(different.items()):
        price("f3eo", **dict([option]))
        assert len(asked) == 2 + number, option
        assert asked[-1] == ("digits-mlp", ["f3eo"])  # here no run is of a kind known before


def test_every_device_and_precision_has_prices_of_its_own(tmp_path, monkeypatch):
    """Nor is a price there put on the scale of a price here."""
    path, noted = tmp_path / "prices.json", []

    def measured(task, methods, place):
        noted.append((place, list(methods)))
        cost = 2.0 if place == PROCESSOR else 5.0
        found = {kind: Quartiles(cost, cost, cost) for kind in methods}
        return Times(Quartiles(1e-3 * cost, 0, 0), found)

    monkeypatch.setattr(module, "step_times", measured)
    (run,) = runs("f3eo")
    there = replace(run, device="cuda", precision="bf16")
    other = replace(there, options=run.options | {"every": 1})
    found = prices([run], path) | prices([there, run], path) | prices([other, there], path)
    assert list(found.values()) == [2.0, 5.0, 5.0]
    assert [place for place, _ in noted] == [PROCESSOR, *[Place("cuda", "bf16")] * 2]
    assert all(kind.endswith(" device=cuda precision=bf16") for kind in list(found)[1:])
    assert noted[2][1] == [list(found)[2], list(found)[1]]  # beside its own place's anchor
    kept = json.loads(path.read_text())["plain_ms"]
    assert kept == {"digits-mlp": 2.0, "digits-mlp device=cuda precision=bf16": 5.0}


def test_steps_on_a_gpu_are_timed_there(gpu):
    methods = {"sgd": ("sgd", METHODS["sgd"].options())}
    step_times("digits-mlp", methods, rounds=3, place=Place("cuda"))
    train = load("digits-mlp").train
    assert gpu.has(train.x) and gpu.has(train.y) and len(gpu.modules) == 2
    assert gpu.waits == 2 * 2 * (3 + 2)  # two readings of two runners in five rounds


def test_a_learning_rate_that_diverges_is_timed_as_any_other(tmp_path):
    run = runs("sgd")[0]
    prices([replace(run, options=run.options | {"lr": 1e30})], tmp_path / "prices.json")
    (entry,) = json.loads((tmp_path / "prices.json").read_text())["prices"].values()
    assert entry["quartiles"] and entry["price"] > 0.5


def test_what_is_tuned_does_not_change_the_work():
    for method in TUNED:
        assert set(space(method)) <= FREE


def test_a_slow_task_gets_fewer_rounds(monkeypatch):
    monkeypatch.setattr(timed, "SECONDS", 0.0)
    seen = []
    monkeypatch.setattr(timed, "quartiles", lambda v: seen.append(len(v)) or Quartiles(1, 1, 1))
    step_times("digits-mlp", {"sgd": ("sgd", METHODS["sgd"].options())})
    assert seen == [timed.FEWEST] * 2


def test_missing_data_are_said_before_anything_is_timed(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    load.cache_clear()
    with pytest.raises(FileNotFoundError, match="unset F3EO_DATA to download"):
        step_times("large-batch", {"sgd": ("sgd", {})}, rounds=1)
