import pytest

from bench.synthetic import row
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.robustness import robustness_table
from f3eo.bench.report.study_data import StudyData

KEPT = {  # accuracy with 4-bit weights, of 0.8
    ("wine", "muon"): 0.6, ("wine", "f3eo"): 0.75, ("wine", "sgd"): 0.7,
    ("digits-mlp", "muon"): 0.2, ("digits-mlp", "f3eo"): 0.65, ("digits-mlp", "sgd"): 0.5,
}  # fmt: skip
BASES = {"wine": "muon", "digits-mlp": "sgd"}


def rows():
    found = []
    for (task, method), kept in KEPT.items():
        options = {"base": BASES[task]} if method == "f3eo" else {}
        for seed in range(2):
            one = row(task, method, seed, 80.0, options=options)
            one["final"] |= {"int4_accuracy": kept, "scaled_loss": 0.5 + seed}
            found.append(one)
    return found


def table(rows):
    found = robustness_table(Analysis(StudyData("x", rows)))
    assert found is not None
    heads = {head.split(",")[0].split(" (")[0]: place for place, head in enumerate(found.columns)}
    return found, {
        (head, method): line[place]
        for method, line in found.lines.items()
        for head, place in heads.items()
    }


def test_accuracies_lost_are_averaged_over_tasks_and_held_against_the_base():
    found, cells = table(rows())
    head = "Accuracy lost to 4-bit weights"
    assert "Accuracy lost to 4-bit weights (%), 2 tasks" in found.columns
    assert cells[head, "f3eo"].text == "10.00" and cells[head, "f3eo"].best
    assert cells[head, "f3eo"].small == f"{20 / 50:.2f} of its bases'"  # Muon loses 20, SGD 30
    assert cells[head, "sgd"].text == "20.00" and cells[head, "sgd"].small == ""
    assert cells[head, "muon"].text == "40.00" and not cells[head, "muon"].best
    assert cells["Test loss after temperature scaling", "sgd"].text == "1.0000"
    assert cells["Accuracy on corrupted inputs", "sgd"].text == "64.00"


def test_a_task_counts_where_every_method_has_the_measure():
    some = [r for r in rows() if (r["task"], r["method"]) != ("wine", "sgd")]
    found, cells = table(some)
    assert "Accuracy lost to 4-bit weights (%), 1 task" in found.columns
    assert cells["Accuracy lost to 4-bit weights", "f3eo"].text == "15.00"


def test_rows_without_the_measures_give_no_table():
    old = rows()
    for r in old:
        r["final"] = {k: v for k, v in r["final"].items() if not k.startswith(("int", "scaled"))}
        del r["final"]["clean_accuracy"], r["final"]["corrupted_accuracy"]
    assert robustness_table(Analysis(StudyData("x", old))) is None


def test_the_goal_of_four_bits_reads_the_same_numbers():
    level = Analysis(StudyData("x", rows())).levels[-1]
    assert level.found == pytest.approx(20 / 50) and level.reached
