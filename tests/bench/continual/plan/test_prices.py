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

    monkeypatch.setattr(prices, "_stepping", slow)
    monkeypatch.setattr(prices, "ROUNDS", 5)
    monkeypatch.setattr(prices, "STEPS", 2)
    path, told, before = tmp_path / "prices.json", [], torch.get_rng_state()
    first = prices.prices(("blobs",), ("replay",), path, told.append)
    assert 1.5 < first["blobs", "replay"] < 3.5 and told == ["timing 1 learners on blobs …"]
    again = prices.prices(("blobs",), ("sgd", "replay", "agem"), path)
    assert again["blobs", "replay"] == first["blobs", "replay"] and again["blobs", "sgd"] == 1.0
    assert 1.2 < again["blobs", "agem"] < 2.5
    assert json.loads(path.read_text())["plain_ms"]["blobs"] > 1
    assert torch.equal(torch.get_rng_state(), before)
    path.write_text('{"prices": {"blobs sgd": {"price": 0}}}')
    with pytest.raises(Damaged, match="must be positive"):
        prices.prices(("blobs",), ("sgd",), path)


def test_what_is_timed_is_the_second_stage(blobs, monkeypatch):
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
    first = [("begin", 0), *["step"] * prices.STEPS, ("end", 6), ("begin", 1)]
    assert len(calls) > len(first) and set(calls[: len(first)]) == set(first)
    assert set(calls[len(first) :]) == {"step"}


def test_a_learner_that_cannot_be_timed_has_price_1_and_the_reason_in_its_rows(
    blobs, monkeypatch, tmp_path
):
    def build(model, options, seed):
        raise ValueError("no such base")

    monkeypatch.setitem(PEERS, "agem", replace(PEERS["agem"], build=build))
    told = []
    found = prices.prices(("blobs",), ("sgd", "agem"), tmp_path / "prices.json", told.append)
    assert found["blobs", "agem"] == 1.0 and "agem cannot be timed on blobs" in told[-1]
    assert record(made("agem"))["error"] == "ValueError: no such base"
