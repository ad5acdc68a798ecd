import math

import pytest

from f3eo.bench.statistics.profiles import profile_score, ratios, share, time_to_target

TIMES = {
    "one": {"a": 10.0, "b": 20.0, "c": math.inf},
    "two": {"a": 30.0, "b": 10.0, "c": 10.0},
    "three": {"a": math.inf, "b": 8.0, "c": 2.0},
    "never": {"a": math.inf, "b": math.inf},
    "part": {"a": 5.0},
}


def test_a_profile_by_hand():
    found = ratios(TIMES)
    assert found == {
        "a": [1.0, 3.0, math.inf, 1.0],
        "b": [2.0, 1.0, 4.0, math.inf],
        "c": [math.inf, 1.0, 1.0, math.inf],
    }
    assert [share(found["b"], tau) for tau in (1.0, 1.99, 2.0, 4.0)] == [0.25, 0.25, 0.5, 0.75]
    assert share(found["a"], 1e9) == 0.75


def test_the_integrated_score_is_the_area_under_the_profile():
    """For a: ρ is 1/2 on [1, 3) and 3/4 on [3, 4): (2 · 1/2 + 1 · 3/4) / 3 = 7/12."""
    found = ratios(TIMES)
    assert profile_score(found["a"]) == pytest.approx(7 / 12)
    for method in "abc":
        taus = [1 + 3 * (i + 0.5) / 3000 for i in range(3000)]
        area = sum(share(found[method], tau) for tau in taus) / 3000
        assert profile_score(found[method]) == pytest.approx(area, abs=1e-3)
    assert (
        profile_score([1.0, 1.0]) == 1.0 and profile_score([math.inf]) == profile_score([]) == 0.0
    )


def test_the_time_to_the_target_is_finite_if_most_seeds_reach_it():
    assert time_to_target([3.0, 1.0, None]) == 3.0
    assert time_to_target([3.0, None, None]) == time_to_target([3.0, None]) == math.inf


def test_a_target_reached_before_any_step_is_shared():
    assert ratios({"t": {"a": 0.0, "b": 0.0, "c": 3.0}}) == {
        "a": [1.0],
        "b": [1.0],
        "c": [math.inf],
    }
    assert ratios({}) == {}
