"""The goals, judged from rows."""

import pytest

from bench.continual.report.made_up import lost_row, row
from f3eo.bench.continual.report.facts import figures
from f3eo.bench.continual.report.goals import reached
from f3eo.bench.continual.report.study import StreamStudy

JITTER = (-0.002, 0.001, 0.0, 0.003, -0.001)
RECIPE, MEMORY, EWC, ZERO, FASHION = 1, 3, 4, 5, 6
"""Places of goals in GOALS."""


def runs(learner, stream, learnt=0.9, lost=0.02, seeds=5, stages=5, equal="steps"):
    return [
        row(stream, learner, s, equal, learnt=learnt + JITTER[s], lost=lost, stages=stages)
        for s in range(seeds)
    ]


def judged(at, *groups, equal="steps"):
    rows = [made for group in groups for made in group]
    return reached(StreamStudy("made-up", rows), equal)[at]


TWENTY = ("permuted-mnist", "rotated-mnist")


@pytest.mark.parametrize(("ahead", "outcome"), [(0.035, True), (0.025, False), (-0.01, False)])
def test_three_points_above_stable_sgd_on_both_streams(ahead, outcome):
    goal = judged(
        RECIPE,
        *(runs("stable_sgd", s) for s in TWENTY),
        runs("f3eo_stable", "permuted-mnist", 0.95),
        runs("f3eo_stable", "rotated-mnist", 0.9 + ahead),
    )
    assert goal.reached is outcome and not goal.missing
    text = f"rotated-mnist: {100 * ahead:+.2f}".replace("-1", "−1")
    assert figures(goal) == ["permuted-mnist: +5.00", text]


def test_a_goal_with_a_stream_missing_is_not_judged_unless_the_other_fails():
    here = runs("stable_sgd", "permuted-mnist")
    goal = judged(RECIPE, here, runs("f3eo_stable", "permuted-mnist", 0.95))
    assert (goal.reached, goal.missing) == (None, ["no comparison on rotated-mnist"])
    assert judged(RECIPE, here, runs("f3eo_stable", "permuted-mnist", 0.9)).reached is False


def test_what_is_missing_is_named():
    forgetting = judged(2, runs("f3eo", "permuted-mnist"), runs("sgd", "permuted-mnist"))
    assert forgetting.missing == [
        "no comparison on rotated-mnist",
        "no AdamW, Muon, SAM on permuted-mnist",
    ]


def test_few_seeds_are_not_judged_and_said():
    goal = judged(
        RECIPE,
        *(runs("stable_sgd", s, seeds=3) for s in TWENTY),
        *(runs("f3eo_stable", s, 0.95, seeds=3) for s in TWENTY),
    )
    assert goal.reached is None
    assert figures(goal)[0] == "permuted-mnist: +5.00 (3 seeds)"


def test_each_budget_is_judged_by_itself():
    rows = [
        *(runs("stable_sgd", s, equal=e) for s in TWENTY for e in ("steps", "time")),
        *(runs("f3eo_stable", s, 0.95) for s in TWENTY),
        *(runs("f3eo_stable", s, 0.9, equal="time") for s in TWENTY),
    ]
    assert judged(RECIPE, *rows).reached is True
    assert judged(RECIPE, *rows, equal="time").reached is False


def test_over_replay_in_the_mean_over_streams_of_accuracy():
    rows = [
        runs("replay", "permuted-mnist", 0.8),
        runs("f3eo_memory", "permuted-mnist", 0.83),
        runs("replay", "rotated-mnist", 0.8),
        runs("f3eo_memory", "rotated-mnist", 0.815),
        runs("replay", "sinusoid", 0.2),  # an error: in another unit
        runs("f3eo_memory", "sinusoid", 0.9),
    ]
    rows += [runs(n, "permuted-mnist", equal="time") for n in ("replay", "f3eo_memory")]
    goal = judged(MEMORY, *rows)
    assert goal.reached is True and figures(goal) == ["+2.25"]
    assert figures(judged(MEMORY, *rows, equal="time")) == ["+0.00 ≈"]
    assert judged(MEMORY, *rows[:1], runs("f3eo_memory", "permuted-mnist", 0.81)).reached is False
    assert judged(MEMORY, rows[0]).missing == ["no stream has both"]


def test_exact_against_batch_squared():
    better = judged(EWC, runs("ewc", "permuted-mnist", 0.91), runs("ewc_batch", "permuted-mnist"))
    assert better.reached is True and figures(better) == ["+1.00"]
    equal = judged(EWC, runs("ewc", "permuted-mnist"), runs("ewc_batch", "permuted-mnist"))
    assert equal.reached is False and figures(equal) == ["+0.00 ≈"]


def test_zero_step_needs_every_peer_without_memory():
    ours = runs("f3eo", "rotated-mnist", lost=0.01)
    low, high = (runs("sgd", "rotated-mnist", lost=0.03), runs("ewc", "rotated-mnist", lost=0.0))
    assert judged(ZERO, ours, low, runs("replay", "rotated-mnist", lost=0.0)).reached is True
    goal = judged(ZERO, ours, low, high)
    assert goal.reached is False
    assert figures(goal) == ["SGD +8.00 · EWC −4.00"]


@pytest.mark.parametrize(
    ("lost", "learnt", "outcome", "text"),
    [
        (0.05, 0.9, True, "50 % less"),
        (0.07, 0.9, False, "30 % less"),
        (0.05, 0.8, False, "50 % less*"),
        (0.12, 0.9, False, "−20 % less"),
    ],
)
def test_forty_per_cent_less_forgetting_at_equal_fashion_accuracy(lost, learnt, outcome, text):
    goal = judged(
        FASHION,
        runs("sgd", "mnist-fashion", lost=0.1, stages=2),
        runs("f3eo", "mnist-fashion", learnt, lost, stages=2),
    )
    assert goal.reached is outcome
    assert figures(goal) == [text]


def test_a_diverged_run_costs_its_advantage():
    ours = runs("f3eo_stable", "permuted-mnist", 0.95)
    ours[0] = lost_row("permuted-mnist", "f3eo_stable", 0)
    goal = judged(RECIPE, runs("stable_sgd", "permuted-mnist"), ours)
    # it counts as the worst finished run, which is the peer's with that seed: 0, and four times 5
    assert goal.figures[0].difference.mean == pytest.approx(4.0)
    assert goal.figures[0].reached is True


def test_nothing_is_judged_without_rows():
    assert all(goal.reached is None for goal in reached(StreamStudy("empty", []), "steps"))
