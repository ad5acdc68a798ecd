"""The README: short; its picture, numbers and commands are those of the repository."""

import json
import re

import pytest
from torch import nn
from torch.optim import SGD

from docs.pages import ROOT, prose, table, text
from f3eo import F3EO
from f3eo.bench.report.study_figures import records_figure

STUDY = ROOT / "results/study"
SUMMARY = json.loads((STUDY / "summary.json").read_text(encoding="utf-8"))
RECORDS = {record["rival"]: record for record in SUMMARY["records"]}


def test_it_takes_a_minute():
    assert len(text("README.md").split()) <= 550


def test_it_keeps_the_two_commands():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target} " in text("README.md") and f"\n{target}: " in makefile


def test_its_example_has_seven_lines():
    (block,) = re.findall(r"```python\n(.*?)```", text("README.md"), re.S)
    assert len([line for line in block.splitlines() if line]) <= 7


def test_its_one_picture_is_what_the_committed_results_give():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text("README.md"))
    counts = {
        rival: tuple(len(record[kind]) for kind in ("better", "level", "worse"))
        for rival, record in RECORDS.items()
    }
    assert (ROOT / picture).read_bytes() == records_figure(counts)


NAMES = {"sgd": "SGD", "adamw": "AdamW", "sam": "SAM", "muon": "Muon"}


@pytest.mark.parametrize("rival", NAMES)
def test_its_records_are_those_of_the_study(rival):
    better, worse = (len(RECORDS[rival][kind]) for kind in ("better", "worse"))
    said = f"than {NAMES[rival]} on {better} tasks and worse on {worse},"
    assert said in prose("README.md") or said.replace(" tasks and worse on", " and") in prose(
        "README.md"
    ).replace(".", ",")


def test_its_ranks_and_its_goals_are_those_of_the_study():
    said, ranks = prose("README.md"), SUMMARY["ranks"]
    ours, sam = ranks["average"]["f3eo"], ranks["average"]["sam"]
    assert f"average rank is {ours:.2f}, SAM's is {sam:.2f}; the difference is chance" in said
    assert abs(ours - sam) < ranks["critical_difference"]
    assert list(SUMMARY["ranks_by_loss"]["average"]).index("f3eo") == 1
    assert list(SUMMARY["ranks_by_calibration"]["average"]).index("f3eo") == 7
    assert "By test loss it is second of eleven, by calibration eighth" in said
    assert len(ranks["average"]) == 11
    assert len(ranks["tasks"]) == 15 and "fifteen tasks and ten seeds" in said
    assert {difference["n"] for difference in SUMMARY["differences"]} == {10}


def test_the_one_goal_that_it_names_is_the_one_that_is_reached():
    goals = [*SUMMARY["levels"], *SUMMARY["goals"]]
    (reached,) = [goal for goal in goals if goal["reached"]]
    assert len(goals) == 12 and "4-bit weights" in reached["claim"] and reached["found"] < 0.5
    said = prose("README.md")
    assert "Of twelve goals [one is reached]" in said
    assert "weights of 4 bits cost it less than half of what they cost its bases" in said


def test_its_cost_is_that_of_a_step():
    model, said = nn.Linear(2, 2), prose("README.md")
    assert F3EO(model, SGD, lr=0.1).gradient_equivalents == pytest.approx(1.05)
    assert F3EO(model, SGD, lr=0.1, fraction=1, every=1).gradient_equivalents == 2
    assert "a step costs 1.05 plain gradients" in said and "whole batch it costs 2 by count" in said
    for method, label in (("default", "by the clock"), ("sam", "SAM")):
        (row,) = (r for r in table("performance.md", "version 0.3") if r[1] == f"`{method}`")
        ratios = [cell.split()[0] for cell in row[2:]]
        assert f"{label} {min(ratios)} to {max(ratios)}" in re.sub(r"\[|\]\([^)]*\)", "", said)
