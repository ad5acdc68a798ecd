import math

import pytest
from scipy import stats

from f3eo.bench.continual.numbers import NUMBERS, turned
from f3eo.bench.continual.numbers.statistics import by_seed, compared, compared_alone, intervals

SCORES = [[0.1, 0.2, 0.3], [0.9, 0.3, 0.2], [0.7, 0.8, 0.4], [0.6, 0.85, 0.9]]
BY_HAND = {
    "average": (0.6 + 0.85 + 0.9) / 3,
    "forgetting": ((0.9 - 0.6) + (0.8 - 0.85)) / 2,
    "backward": ((0.6 - 0.9) + (0.85 - 0.8)) / 2,
    "forward": ((0.3 - 0.2) + (0.4 - 0.3)) / 2,
    "learning": (0.9 + 0.8 + 0.9) / 3,
    "last": 0.9,
}


def test_the_numbers_of_a_matrix_by_hand():
    assert {n: NUMBERS[n].of(SCORES, "accuracy") for n in NUMBERS} == pytest.approx(BY_HAND)


def test_the_best_before_is_what_is_forgotten_not_the_score_right_after_training():
    later = [[0.0, 0.0, 0.0], [0.5, 0, 0], [0.9, 0.5, 0], [0.4, 0.5, 0.5]]
    assert NUMBERS["forgetting"].of(later, "accuracy") == pytest.approx((0.5 + 0.0) / 2)
    assert NUMBERS["backward"].of(later, "accuracy") == pytest.approx((-0.1 + 0.0) / 2)


@pytest.mark.parametrize("metric", ["error", "loss"])
def test_errors_and_losses_are_turned_so_that_forgetting_stays_a_loss(metric):
    errors = [[1 - score for score in row] for row in SCORES]
    found = {n: NUMBERS[n].of(errors, metric) for n in NUMBERS}
    shifted = {"average", "learning", "last"}  # differences do not see the shift by 1
    expected = {n: v - 1 if n in shifted else v for n, v in BY_HAND.items()}
    assert found == pytest.approx(expected)
    assert found["forgetting"] > 0


def test_one_stage_has_nothing_to_forget_or_to_carry_over():
    found = {n: NUMBERS[n].of([[0.1], [0.9]], "accuracy") for n in NUMBERS}
    assert all(math.isnan(found[n]) for n in ("forgetting", "backward", "forward"))
    assert found["average"] == found["learning"] == found["last"] == 0.9


def test_another_shape_and_another_metric_are_refused():
    with pytest.raises(ValueError, match=r"K \+ 1 rows.*received rows of \[3, 3\].*diverged"):
        turned(SCORES[:2], "accuracy")
    with pytest.raises(ValueError, match="'speed'; choose from accuracy, loss, error"):
        turned(SCORES, "speed")


def row(learner, seed, last, status="finished", equal="steps"):
    scores = [[0.1, 0.2], [0.9, 0.3], [0.5, last]]
    base = {"stream": "s", "learner": learner, "seed": seed, "status": status, "kind": "result"}
    return base | {"config": {"equal": equal}, "scores": scores if status == "finished" else []}


def test_values_by_seed_leave_out_lost_runs_and_other_contests():
    rows = [row("a", 0, 0.7), row("a", 1, 0.8), row("a", 2, 0, "diverged")]
    rows += [row("a", 0, 0.9, equal="time"), row("b", 0, 0.6)]
    found = by_seed(rows, NUMBERS["last"], "s", "accuracy", "steps")
    assert found == {"a": {0: 0.7, 1: 0.8}, "b": {0: 0.6}}
    assert intervals(found)["a"].mean == pytest.approx(0.75)
    half = stats.t.ppf(0.975, 1) * 0.05  # s/√2 = 0.05
    assert intervals(found)["a"].half == pytest.approx(half)


def test_learners_are_compared_on_common_seeds_with_the_better_sign_and_holm():
    gains = [0.1, 0.2, 0.15, 0.05, 0.12]
    values = {"a": dict(enumerate(gains)), "b": dict.fromkeys(range(9), 0.0)}
    values["c"] = {seed: 1e-3 * (-1) ** seed for seed in range(5)}
    pairs = [("a", "b"), ("c", "b"), ("a", "none")]
    higher, level = compared_alone("s", NUMBERS["average"], values, pairs)
    p = stats.ttest_1samp(gains, 0).pvalue
    assert higher.p == pytest.approx(p) and higher.advantage.mean == pytest.approx(0.124)
    lower, _ = compared_alone("s", NUMBERS["forgetting"], values, pairs)
    assert lower.advantage.mean == pytest.approx(-0.124) and lower.p == pytest.approx(p)
    first, second = compared("s", NUMBERS["average"], values, pairs)
    assert first.p == pytest.approx(2 * p) and first.relation == "better"
    assert second.p == pytest.approx(level.p) and second.relation == "level"
