"""What is read from a row, against numbers worked out by hand on a 3 × 3 matrix."""

import math

import pytest

from bench.continual.report.made_up import lost_row, row, study
from f3eo.bench.continual.report.measure import MEASURES, decimal, measure, signed
from f3eo.bench.continual.report.quantities import (
    AVERAGE,
    BACKWARD,
    FORGETTING,
    FORWARD,
    FREE_ENERGY,
    LAST,
    LEARNING,
    NUMBERS,
    TRACE,
    ZERO_STEP,
    on_unseen,
)
from f3eo.bench.continual.report.values import values
from f3eo.bench.continual.run.row import check

ACCURACY, ERROR = MEASURES["accuracy"], MEASURES["error"]
SCORES = [[0.1, 0.1, 0.2], [0.9, 0.2, 0.3], [0.7, 0.8, 0.4], [0.6, 0.5, 1.0]]
"""Row 0 before any training, then after one, two and three stages."""


def hand(scores=SCORES, **changes):
    return row("permuted-mnist", "sgd", 0, stages=3, scores=scores, **changes)


def test_made_up_rows_are_rows():
    for made in study(seeds=1, stages=3):
        check(made)
    check(lost_row("permuted-mnist", "sgd", 0))


@pytest.mark.parametrize(
    ("quantity", "in_percent", "of_an_error"),
    [
        (AVERAGE, 70.0, 0.7),  # (0.6 + 0.5 + 1) / 3
        (FORGETTING, 30.0, 0.1),  # ((0.9 − 0.6) + (0.8 − 0.5)) / 2, ((0.6 − 0.7) + (0.5 − 0.2)) / 2
        (BACKWARD, -30.0, 0.3),  # ((0.6 − 0.9) + (0.5 − 0.8)) / 2
        (FORWARD, 15.0, -0.15),  # ((0.2 − 0.1) + (0.4 − 0.2)) / 2
        (LEARNING, 90.0, 0.9),  # (0.9 + 0.8 + 1) / 3
        (LAST, 100.0, 1.0),
    ],
)
def test_numbers_by_hand(quantity, in_percent, of_an_error):
    assert quantity.read(hand(), ACCURACY) == pytest.approx(in_percent)
    assert quantity.read(hand(), ERROR) == pytest.approx(of_an_error)


def test_scores_of_errors_are_better_when_smaller_and_differences_when_larger():
    assert [q.sign(ERROR) for q in NUMBERS] == [-1, -1, 1, 1, -1, -1]
    assert [q.sign(ACCURACY) for q in NUMBERS] == [1, -1, 1, 1, 1, 1]


def test_one_stage_has_nothing_to_forget_or_transfer():
    one = row("permuted-mnist", "sgd", 0, stages=1)
    assert [q.read(one, ACCURACY) for q in (FORGETTING, BACKWARD, FORWARD)] == [None] * 3
    assert AVERAGE.read(one, ACCURACY) == LAST.read(one, ACCURACY) == pytest.approx(90)


def test_the_structure_is_that_after_the_last_stage_and_may_not_exist():
    structure = {"trace": [3.0, 2.0, 7.0], "free_energy": [1.0, None, None]}
    made = hand(structure=structure)
    assert TRACE.read(made, ACCURACY) == 7
    assert FREE_ENERGY.read(made, ACCURACY) is None
    assert TRACE.read(hand(structure={}), ACCURACY) is None


def entry(stage, after, shots, scores):
    return {"stage": stage, "after": after, "shots": shots, "steps": [0, 1, 5], "scores": scores}


UNSEEN = [
    entry("a", 1, None, [0.1, 0.2, 0.3]),
    entry("a", 3, None, [0.4, 0.5, 0.6]),
    entry("a", 3, 5, [0.4, 0.8, 0.9]),
    entry("b", 3, None, [0.6, 0.7, 0.8]),
    entry("b", 3, 5, [0.6, 0.6, 0.7]),
]


def test_unseen_tasks_are_averaged_and_few_shots_do_not_count_twice():
    made = hand(unseen=UNSEEN)
    assert ZERO_STEP.read(made, ACCURACY) == pytest.approx(50)
    assert on_unseen(1, None, 0, "").read(made, ACCURACY) == pytest.approx(10)
    assert on_unseen(3, None, 5, "").read(made, ACCURACY) == pytest.approx(70)
    assert on_unseen(3, 5, 1, "").read(made, ACCURACY) == pytest.approx(70)
    assert on_unseen(3, 5, 5, "").read(made, ACCURACY) == pytest.approx(80)
    assert on_unseen(2, None, 0, "").read(made, ACCURACY) is None
    assert ZERO_STEP.read(hand(unseen=[]), ACCURACY) is None
    few = [made for made in UNSEEN if made["shots"]]  # before a step no sample is used
    assert ZERO_STEP.read(hand(unseen=few), ACCURACY) == pytest.approx(50)


def test_a_lost_run_counts_as_the_worst_finished_one_in_every_number():
    rows = [
        row("permuted-mnist", "sgd", 0, learnt=0.9, lost=0.02),
        row("permuted-mnist", "sam", 0, learnt=0.8, lost=0.01),
        lost_row("permuted-mnist", "f3eo", 0),
        row("permuted-mnist", "f3eo", 1, learnt=0.9, lost=0.0),
    ]
    average = values(rows, AVERAGE, ACCURACY)
    assert average.runs["f3eo"] == pytest.approx({0: 78.0, 1: 90.0})
    assert average.lost == {"f3eo": [0]}
    # SGD forgets most: 2 points by each of 4, 3, 2 and 1 later stages
    assert values(rows, FORGETTING, ACCURACY).runs["f3eo"] == pytest.approx({0: 5.0, 1: 0.0})


def test_with_no_finished_run_there_are_no_values():
    found = values([lost_row("permuted-mnist", "sgd", 0)], AVERAGE, ACCURACY)
    assert (found.runs, found.means, found.lost) == ({}, {}, {"sgd": [0]})


def test_means_come_best_first():
    rows = [
        row("sinusoid", n, s, learnt=a) for n, a in (("sgd", 0.9), ("sam", 0.7)) for s in (0, 1)
    ]
    assert list(values(rows, AVERAGE, ERROR).means) == ["sam", "sgd"]
    assert list(values(rows, AVERAGE, ACCURACY).means) == ["sgd", "sam"]


def test_numbers_as_text_have_a_true_minus():
    assert (decimal(-1.256, 2), signed(1.256, 2), signed(-0.5, None)) == (
        "−1.26",
        "+1.26",
        "−0.500",
    )
    assert decimal(math.nan, None) == "–"


def test_an_unknown_measure_names_those_there_are():
    with pytest.raises(ValueError, match="one of accuracy, loss, error, received 'speed'"):
        measure("speed")
