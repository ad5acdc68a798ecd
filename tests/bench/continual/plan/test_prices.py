import json
import time
from dataclasses import replace

import pytest
import torch

from bench.continual.blobs import BLOBS, made
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan import prices
from f3eo.bench.continual.run.row import record
from f3eo.bench.execute.disk import Damaged


def test_a_price_is_the_time_of_a_step_over_that_of_sgd(blobs, monkeypatch, tmp_path):
    spin, lasting = prices._stepping, {"sgd": 1e-3, "replay": 3e-3, "agem": 2e-3}

    def slow(stream, name, options, samples):
        step = spin(stream, name, options, samples)

        def slower():
            end = time.process_time() + lasting[name]
            while time.process_time() < end:
                pass
            return step()

        return slower

    def slow_stage(stream, name, options, samples):  # twice as dear in the first stage
        step = slow(stream, name, options, samples)
        return lambda: [step() for _ in range((1 if name == "sgd" else 2) * prices.STEPS)][-1]

    monkeypatch.setattr(prices, "_stage", slow_stage)
    monkeypatch.setattr(prices, "_stepping", slow)
    monkeypatch.setattr(prices, "ROUNDS", 5)
    monkeypatch.setattr(prices, "STEPS", 2)
    path, told, before = tmp_path / "prices.json", [], torch.get_rng_state()
    first = prices.prices({"blobs": 3}, ("replay",), path, told.append)
    own = json.loads(path.read_text())["prices"]["blobs replay"]
    assert 1.5 < own["price"] < 3.5 and 1.5 < own["first"] / own["price"] < 2.5
    assert first["blobs", "replay"] == round((own["first"] + 2 * own["price"]) / 3, 3)
    (alone,) = prices.prices({"blobs": 1}, ("replay",), path).values()
    assert alone == own["first"] and told == ["timing 1 learners on blobs …"]
    again = prices.prices({"blobs": 3}, ("sgd", "replay", "agem"), path)
    assert again["blobs", "replay"] == first["blobs", "replay"] and again["blobs", "sgd"] == 1.0
    assert 1.8 < again["blobs", "agem"] < 3.4
    assert json.loads(path.read_text())["plain_ms"]["blobs"] > 1
    assert torch.equal(torch.get_rng_state(), before)
    path.write_text('{"prices": {"blobs sgd": {"price": 0}}}')
    with pytest.raises(Damaged, match="must be positive, got 0"):
        prices.prices({"blobs": 3}, ("sgd",), path)
    path.write_text('{"prices": {"blobs sgd": {"price": 1}}}')
    with pytest.raises(Damaged, match=r"'first'.*move it away"):
        prices.prices({"blobs": 3}, ("sgd",), path)


def test_what_is_timed_is_a_first_and_a_second_stage(blobs, monkeypatch):
    calls = []

    class Noting:
        def begin(self, stage, steps):
            calls.append(("begin", stage))

        def step(self, closure, x, y):
            calls.append("step")
            return torch.tensor(0.0)

        def end(self, closure, batches):
            calls.append(("end", len(batches)))

    noting = replace(PEERS["sgd"], build=lambda model, options, seed: Noting())
    monkeypatch.setitem(PEERS, "sgd", noting)
    prices.step_times(BLOBS, {"sgd": {}}, rounds=5)
    steps = ["step"] * prices.STEPS
    assert calls[: prices.STEPS + 3] == [("begin", 0), *steps, ("end", 6), ("begin", 1)]
    timed = calls[prices.STEPS + 3 :]
    assert timed.count(("begin", 0)) == 7 and ("begin", 1) not in timed  # two rounds warm up
    assert timed.count("step") == 2 * 7 * prices.STEPS


def test_a_learner_that_cannot_be_timed_has_price_1_and_the_reason_in_its_rows(
    blobs, monkeypatch, tmp_path
):
    def build(model, options, seed):
        raise ValueError("no such base")

    monkeypatch.setitem(PEERS, "agem", replace(PEERS["agem"], build=build))
    told = []
    found = prices.prices({"blobs": 3}, ("sgd", "agem"), tmp_path / "prices.json", told.append)
    assert found["blobs", "agem"] == 1.0 and "agem cannot be timed on blobs" in told[-1]
    assert record(made("agem"))["error"] == "ValueError: no such base"
