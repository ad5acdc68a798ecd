"""The cells of the tables, worked out by hand."""

from statistics import stdev

from scipy import stats

from bench.continual.report.made_up import lost_row, row
from f3eo.bench.continual.report.against import against_tables
from f3eo.bench.continual.report.page import costs_table
from f3eo.bench.continual.report.quantities import AVERAGE, FORGETTING, TRACE, ZERO_STEP
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.continual.report.tables import (
    numbers_table,
    overview,
    structure_table,
    table,
    unseen_tables,
)

STEPS = Place("permuted-mnist", "steps")
A, B = (0.90, 0.91, 0.92, 0.90, 0.91), (0.80, 0.82, 0.81, 0.80, 0.82)


def runs(learner, scores, lost=0.0, stream="permuted-mnist", equal="steps", **more):
    return [
        row(stream, learner, s, equal, stages=2, learnt=score, lost=lost, **more)
        for s, score in enumerate(scores)
    ]


def study(*groups):
    return StreamStudy("made-up", [made for group in groups for made in group])


def texts(made, learner):
    return [cell.text for cell in made.lines[learner]]


def test_every_number_of_a_learner():
    made = numbers_table(study(runs("sgd", A, lost=0.1)), STEPS)
    assert made.columns == [
        "Average accuracy", "Forgetting", "Backward transfer", "Forward transfer",
        "Learning accuracy", "Last task",
    ]  # fmt: skip
    # learnt 90.8 in the mean, 10 points lost on the first of two; before its stage 12 instead of 10
    assert texts(made, "sgd") == ["85.80", "10.00", "−10.00", "2.00", "90.80", "90.80"]
    half = stats.t.ppf(0.975, 4) * 100 * stdev(A) / 5**0.5
    assert made.lines["sgd"][0].small == f"± {half:.2f}" == "± 1.04"


def test_errors_have_their_own_unit_and_the_least_is_best():
    made = study(runs("sgd", A, stream="sinusoid"), runs("sam", B, stream="sinusoid"))
    (average, *_), (other, *_) = numbers_table(made, Place("sinusoid", "steps")).lines.values()
    assert (average.text, average.best) == ("0.9080", False)
    assert (other.text, other.best) == ("0.8100", True)


def test_a_quantity_on_every_stream_of_a_budget():
    made = study(
        runs("sgd", A),
        runs("sam", B),
        runs("sgd", B, equal="time"),
        runs("sgd", A, stream="sinusoid", unseen=[]),
    )
    found = overview(made, "steps", AVERAGE)
    assert found.columns == ["permuted-mnist", "sinusoid (error)"]
    assert texts(found, "sgd") == ["90.80", "0.9080"] and texts(found, "sam") == ["81.00", "–"]
    assert [cell.best for cell in found.lines["sgd"]] == [True, True]
    assert found.lines["sgd"][0] == numbers_table(made, STEPS).lines["sgd"][0]
    assert overview(made, "steps", ZERO_STEP).columns == ["permuted-mnist"]
    assert texts(overview(made, "time", AVERAGE), "sgd") == ["81.00"]
    assert list(overview(made, "time", AVERAGE).lines) == ["sgd"]


def test_the_best_of_its_group_and_what_is_not_told_apart_from_it():
    made = table(
        study(
            runs("sgd", A),
            runs("sam", reversed(A)),
            runs("adamw", B),
            runs("ewc", (0.91, 0.92, 0.93, 0.91, 0.92)),
            runs("replay", B),
            runs("agem", A),
        ),
        STEPS,
        [AVERAGE],
    )
    marks = {learner: (cell.best, cell.mark) for learner, (cell,) in made.lines.items()}
    assert marks == {
        "sgd": (False, None),  # one point below EWC on every seed
        "sam": (False, "level"),  # about one point below it, but not on every seed
        "adamw": (False, None),
        "ewc": (True, None),
        "replay": (False, None),
        "agem": (True, None),
    }
    assert list(made.lines) == ["sgd", "adamw", "sam", "ewc", "replay", "agem"]


def test_lost_runs_are_counted_in_their_cell():
    rows = [*runs("sgd", A), *runs("sam", B[:4]), lost_row("permuted-mnist", "sam", 4)]
    cell = table(study(rows), STEPS, [AVERAGE]).lines["sam"][0]
    assert (cell.text, cell.small.split("\n")[1]) == ("80.60", "1 lost")  # the fifth counts as 80


def test_a_learner_that_never_finished_has_no_number_of_its_own():
    made = table(study([lost_row("permuted-mnist", "sgd", 0)]), STEPS, [AVERAGE])
    assert (made.lines["sgd"][0].text, made.lines["sgd"][0].small) == ("–", "1 lost")


def test_one_run_has_no_interval():
    assert table(study(runs("sgd", A[:1])), STEPS, [AVERAGE]).lines["sgd"][0].small == "one run"


def test_the_structure_is_judged_where_it_has_a_best_value():
    made = structure_table(study(runs("sgd", A, lost=0.1), runs("f3eo", A)), STEPS)
    assert made is not None
    trace = made.columns.index(TRACE.title)
    assert [cells[trace].text for cells in made.lines.values()] == [
        "82.0",
        "2.00",
    ]  # 2 + 400 · .1 · 2
    assert [[cell.best for cell in cells] for cells in made.lines.values()] == [
        [False] * 5,
        [True, True, True, False, False],
    ]
    assert structure_table(study(runs("sgd", A, structure={})), STEPS) is None


def test_unseen_tasks_by_stages_shots_and_steps():
    made = unseen_tables(study(runs("sgd", [0.9] * 5)), STEPS)
    assert {title: t.columns for title, t in made.items()} == {
        "Before a single step": ["after 1 stage", "after 2 stages"],
        "After 2 stages, steps on all training samples": [
            "0 steps",
            "1 step",
            "5 steps",
            "20 steps",
        ],
        "After 2 stages, steps on 5 samples per class": [
            "0 steps",
            "1 step",
            "5 steps",
            "20 steps",
        ],
    }
    before, every, few = made.values()
    # 0.3 + 0.4 · 0.9 · share of the stages, and 0.01 in the mean of two tasks
    assert texts(before, "sgd") == ["49.00", "67.00"]
    assert texts(every, "sgd") == ["67.00", "68.00", "72.00", "87.00"]
    assert texts(few, "sgd") == ["67.00", "68.00", "70.00", "77.00"]
    assert unseen_tables(study(runs("sgd", A, unseen=[])), STEPS) == {}


def test_every_learner_of_f3eo_against_every_peer():
    made = study(
        runs("f3eo", A, lost=0.01), runs("f3eo_stable", B, lost=0.01),
        runs("sgd", B, lost=0.01), runs("sam", A, lost=0.03),
        runs("f3eo", B, equal="time"), runs("sgd", B, equal="time"),
    )  # fmt: skip
    found = against_tables(made, "permuted-mnist", [AVERAGE, FORGETTING])
    assert [record.ours for record in found] == ["f3eo", "f3eo_stable"]
    ours = found[0]
    assert ours.table.columns == [
        "Average accuracy, equal steps", "Average accuracy, equal seconds",
        "Forgetting, equal steps", "Forgetting, equal seconds",
    ]  # fmt: skip
    shown = {rival: [(c.text, c.mark) for c in line] for rival, line in ours.table.lines.items()}
    assert shown == {
        "sgd": [("+9.80", "better"), ("+0.00", "level"), ("+0.00", "level"), ("+0.00", "level")],
        "sam": [("+1.00", "better"), ("–", None), ("+2.00", "better"), ("–", None)],
    }
    assert ours.counts == {"Average accuracy": (2, 1, 0), "Forgetting": (1, 2, 0)}
    assert found[1].counts["Average accuracy"] == (0, 1, 1)


def test_holm_in_the_tests_is_over_all_learners_of_f3eo():
    wild = (0.85, 0.90, 0.70, 0.89, 0.80)

    def p(*more):
        found = against_tables(
            study(runs("f3eo", A), runs("sgd", wild), *more), "permuted-mnist", [AVERAGE]
        )
        return found[0].table.lines["sgd"][0].small.split("p ")[1]

    gains = [100 * (a - b) for a, b in zip(A, wild, strict=True)]
    alone = stats.ttest_1samp(gains, 0).pvalue
    assert 0.01 < alone < 0.5
    assert p() == f"{alone:.2g}"
    assert p(runs("f3eo_stable", reversed(wild))) == f"{2 * alone:.2g}"


def test_without_a_peer_or_f3eo_there_is_nothing_to_test():
    assert against_tables(study(runs("sgd", A)), "permuted-mnist", [AVERAGE]) == []
    assert against_tables(study(runs("f3eo", A)), "permuted-mnist", [AVERAGE]) == []


def test_costs_are_means_of_finished_runs():
    rows = [*runs("sgd", A[:2], seconds=8.0), *runs("sgd", A[:1], equal="time", seconds=3.0)]
    rows[1]["seconds"] = 12.0
    made = costs_table(study(rows, [lost_row("permuted-mnist", "sam", 0)]))
    assert made.columns == ["permuted-mnist, equal steps", "permuted-mnist, equal seconds"]
    assert [(c.text, c.small) for c in made.lines["sgd"]] == [
        ("10.0", "100 steps"),
        ("3.00", "100 steps"),
    ]
    assert texts(made, "sam") == ["–", "–"]
