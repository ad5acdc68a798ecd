import math
from dataclasses import replace

import pytest

from f3eo.bench.methods import METHODS
from f3eo.bench.plan import tuning
from f3eo.bench.plan.compare import Comparison
from f3eo.bench.plan.spaces import BASES, OWN, TUNED, WRAPPERS, space
from f3eo.bench.tasks import TASKS


def test_every_method_that_is_tuned_has_one_space():
    assert set(TUNED) == set(OWN) | set(WRAPPERS)
    assert not set(OWN) & set(WRAPPERS)


def test_wrappers_search_their_base_s_rates_and_what_is_their_own():
    for method in WRAPPERS:
        for base in BASES:
            assert dict(space(method, base)) == {**space(base), **WRAPPERS[method]}
        known = {"f3eo": 0, "schedule_free": 0, "looksam": 2, "last_layer": 2}
        assert len(WRAPPERS[method]) == known.get(method, 1)


def test_on_transformers_wrappers_begin_at_adamw_s_default():
    (first,) = tuning.draw("modular-addition", "f3eo", 1)
    rates = METHODS["adamw"].defaults
    assert first == {"lr": rates["lr"], "weight_decay": rates["weight_decay"]}


@pytest.mark.parametrize("base", BASES)
def test_what_has_nothing_of_its_own_to_search_is_tried_at_the_points_of_its_base(base):
    points = tuning.draw("wine", "f3eo", 8, base)
    assert points == tuning.draw("wine", base, 8) == tuning.draw("wine", "schedule_free", 8, base)
    others = tuning.draw("wine", "sam", 8, base)
    assert not {point["lr"] for point in points[1:]} & {point["lr"] for point in others[1:]}


@pytest.mark.parametrize("method", WRAPPERS)
def test_over_another_base_all_trials_are_in_that_base_s_ranges(method):
    first, *others = tuning.draw("digits-mlp", method, 8, "muon")
    assert {name: first[name] for name in OWN["muon"]} == {
        name: METHODS["muon"].defaults[name] for name in OWN["muon"]
    }
    for trial in others:
        for name, range_ in OWN["muon"].items():
            assert 0.99 * range_.low <= trial[name] <= 1.01 * range_.high


@pytest.mark.parametrize("method", TUNED)
def test_a_space_has_two_to_four_options_of_the_method_around_its_default(method):
    found, defaults = space(method), METHODS[method].defaults
    assert 2 <= len(found) <= 4 and "lr" in found
    for name, range_ in found.items():
        assert range_.log and 10 < range_.high / range_.low <= 1000
        assert range_.low < defaults[name] < range_.high or defaults[name] == 0


@pytest.mark.parametrize("method", TUNED)
def test_the_first_trial_is_the_default_and_all_lie_in_the_space(method):
    trials = tuning.draw("digits-mlp", method, 8)
    assert len(trials) == 8
    assert METHODS[method].options(trials[0]) == METHODS[method].options()
    for trial in trials[1:]:
        for name, value in trial.items():
            low, high = space(method)[name].low, space(method)[name].high
            assert 0.99 * low <= value <= 1.01 * high


def test_trials_are_the_same_at_every_call_and_more_trials_go_on():
    few, many = (tuning.draw("digits-mlp", "sgd", n) for n in (3, 8))
    tuning._points.cache_clear()
    assert tuning.draw("digits-mlp", "sgd", 8) == many and many[:3] == few
    assert tuning.draw("wine", "sgd", 8)[1:] != many[1:]
    assert len({str(trial) for trial in many}) == 8


def test_trials_are_spread_evenly():
    """Of 2ⁿ points of a Sobol sequence every 2⁻ⁿ of each range holds one, the first included."""
    points = tuning._points("wine", "sgd", "sgd", 9)[1:]
    for name, range_ in space("sgd").items():
        span = math.log(range_.high / range_.low)
        cells = sorted(int(8 * math.log(p[name] / range_.low) / span * 0.9999) for p in points)
        assert cells == list(range(8)), name


def test_what_has_no_space_is_refused_with_what_has():
    with pytest.raises(ValueError, match="no search space for 'lbfgs'; choose from sgd, adamw"):
        tuning.draw("digits-mlp", "lbfgs", 2)


def test_the_seed_of_the_tuning_is_no_seed_of_results():
    assert tuning.SEED not in {run.seed for run in Comparison(seeds=100).runs()}


def test_a_task_may_have_its_own_range_for_adams_weight_decay():
    decay = TASKS["modular-addition"].decay
    assert decay == (0.2, 2.0)
    for method in ("adamw", "soap", "sam", "f3eo"):
        found = space(method, "adamw", decay)["weight_decay"]
        assert (found.low, found.high) == decay and found.log, method
        drawn = [trial["weight_decay"] for trial in tuning.draw("modular-addition", method, 8)]
        assert min(drawn[1:]) >= 0.2 and 1 < max(drawn) <= 2, method
    for method in ("sgd", "ivon", "adahessian"):
        assert space(method, "adamw", decay) == space(method, "adamw")
    assert space("sam", "sgd", decay) == space("sam", "sgd")


@pytest.mark.parametrize("method", TUNED)
def test_fine_tuning_searches_smaller_rates_of_every_method_and_nothing_else(method, monkeypatch):
    whole = tuning.draw("wine", method, 6)
    monkeypatch.setitem(TASKS, "wine", replace(TASKS["wine"], rates=0.1))
    tuning._points.cache_clear()
    small = tuning.draw("wine", method, 6)
    tuning._points.cache_clear()
    for one, other in zip(whole, small, strict=True):
        assert other["lr"] == pytest.approx(one["lr"] / 10, rel=5e-3)
        assert {k: v for k, v in one.items() if k != "lr"} == {
            k: v for k, v in other.items() if k != "lr"
        }
