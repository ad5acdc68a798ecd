import base64
import json
import random
import re

import pytest

from bench import synthetic
from bench.synthetic import METHODS, TASKS, results, row, variants
from f3eo import cli
from f3eo.bench.execute import archive
from f3eo.bench.methods import label
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.cells import Cell, Table, markdown
from f3eo.bench.report.gaps import gaps
from f3eo.bench.report.pictures import pictures, sensitivity
from f3eo.bench.report.study_data import StudyData, load
from f3eo.bench.report.study_page import render, report

SECTIONS = (
    "goals", "protocol", "scores", "records", "matrix", "ranks", "loss", "calibration",
    "robustness", "targets", "profile", "curves", "costs", "others", "ablation", "sensitivity",
    "settings", "failures", "machine",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = synthetic.whole(tmp_path_factory.mktemp("study") / "made-up")
    report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def plain(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_page_needs_nothing_but_itself(page):
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|<script|<link|url\(|https?://", page)
    for image in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page):
        assert not re.search(r'href="(?!#)', base64.b64decode(image).decode())
    assert len(page) < 800_000


def test_every_section_method_and_task_is_there(page):
    for section in SECTIONS:
        assert f'id="{section}"' in page
    text = plain(page)
    for method in METHODS:
        assert text.count(label(method)) > 8
    for task in TASKS:
        assert f"<h3>{task}</h3>" in page
    assert "not complete" not in text
    assert "8 settings of each method on each task (968 trials)" in text


def test_pictures_lie_beside_the_page(folder):
    names = {path.stem for path in (folder / "pictures").iterdir()}
    ranks = {"ranks", "ranks-loss", "ranks-calibration"}
    assert names == ranks | {"records", "profile", "sensitivity-mnist1d-mlp"} | {
        f"curves-{task}" for task in TASKS
    }
    assert sum(path.stat().st_size for path in (folder / "pictures").iterdir()) < 600_000


def test_the_goals_are_counted_and_printed(page, summary):
    held = {
        goal["rival"]: (len(goal["held"]), goal["total"], goal["reached"])
        for goal in summary["goals"]
    }
    assert held == {
        "sam": (10, 11, True), "muon": (10, 11, False), "sgd": (10, 11, True),
        "adamw": (11, 11, True),
    }  # fmt: skip
    assert summary["goals"][1]["worse"] == ["modular-addition"]
    by = {level["claim"]: (level["found"], level["reached"]) for level in summary["levels"]}
    rank = summary["ranks"]["average"]["f3eo"]
    assert by["average rank by score"] == (rank, True) and rank < 2
    assert by["average rank by test loss"] == (summary["ranks_by_loss"]["average"]["f3eo"], True)
    calibrated = summary["ranks_by_calibration"]["average"]["f3eo"]
    assert by["average rank by calibration"] == (calibrated, True)
    assert by["test accuracy (%) on fashion-cnn"] == (pytest.approx(93, abs=1), True)
    assert by["accuracy lost to 4-bit weights, over that of its bases"] == (None, None)
    text = plain(page)
    assert (
        "better than Muon on at least 50 % of the tasks, worse on none worse on modular-addition "
        "10 of 11, worse on 1 10 of 11, worse on 1 not reached" in text
    )
    assert f"average rank by score: at most 3, and the first {rank:.4g} reached" in text


@pytest.mark.parametrize("name", ["loss", "calibration"])
def test_loss_and_calibration_are_judged_like_the_score(name, page, folder):
    column = {"loss": "test_loss", "calibration": "calibration_error"}[name]
    factor = {"loss": 1, "calibration": 100}[name]
    start = page.index(f'<section id="{name}">')
    text = plain(page[start : page.index("</section>", start)])
    rows = [r for r in results(tasks=("digits-mlp",)) if r["method"] == "sgd"]
    mean = sum(r["final"][column] for r in rows) * factor / 10
    assert f"SGD {mean:.{4 if factor == 1 else 2}f} ▼" in text  # the smaller the better
    analysis = Analysis(load(folder))
    view = analysis.by_loss if name == "loss" else analysis.by_calibration
    better = next(r for r in view.records if r.rival == "adamw").better
    assert len(better) == len(TASKS) and "AdamW 11 0 0 11 –" in text
    muon = view.tasks["modular-addition"].values["muon"]
    assert muon[0] == pytest.approx(
        factor * next(r["final"][column] for r in results(1, ("modular-addition",), ("muon",)))
    )


def test_a_section_judges_by_its_own_quantity():
    rows = results(5, ("digits-mlp",), ("adamw", "f3eo"))
    for r in rows:
        if r["method"] == "f3eo":
            r["final"]["test_loss"] = 1.5 + 0.01 * r["seed"]
    html = render(Analysis(StudyData("x", rows)), {})
    found = {}
    for name in ("records", "loss", "calibration"):
        start = html.index(f'<section id="{name}">')
        text = plain(html[start : html.index("</section>", start)])
        found[name] = re.search(r"worse on AdamW (\d) (\d) (\d) (\d) (\S+)", text).groups()
    assert found["records"] == found["calibration"] == ("1", "0", "0", "1", "–")
    assert found["loss"] == ("0", "0", "1", "0", "digits-mlp")


def test_rows_of_earlier_versions_have_no_robustness(tmp_path):
    rows = results(5, ("wine",), FEW)
    for r in rows:
        for column in ("clean_accuracy", "corrupted_accuracy", "int4_accuracy"):
            del r["final"][column]
    text = plain(render(Analysis(StudyData("x", rows)), {}))
    assert "These runs are of a version that did not measure it." in text


def test_a_goal_that_is_missed_is_said_to_be_missed():
    rows = results(5, ("wine", "digits-mlp"), ("sgd", "adamw", "muon", "sam", "f3eo"))
    swapped = {"sgd": "f3eo", "f3eo": "sgd"}
    rows = [r | {"method": swapped.get(r["method"], r["method"])} for r in rows]
    text = plain(render(Analysis(StudyData("x", rows)), {}))
    assert text.count("not reached so far") >= 2


def test_the_table_of_scores_holds_means_marks_and_losses(page):
    table = page[page.index('id="scores"') : page.index('id="records"')]
    cells = {
        name: re.findall(r"<td[^>]*>(.*?)</td>", line)[1:]
        for line in re.findall(r"<tr.*?</tr>", table, re.S)[1:]
        if (name := re.search(r'class="name"[^>]*>(.*?)<', line)[1])
    }
    rows = [r for r in results(tasks=("wine",)) if r["method"] == "sgd"]
    mean = sum(r["final"]["test_accuracy"] for r in rows) * 10
    wine, modular = TASKS.index("wine"), TASKS.index("modular-addition")
    assert cells["SGD"][wine].startswith(f"{mean:.2f}<br>") and "▼" in cells["SGD"][0]
    assert "▲" in cells["Muon"][modular] and "2 lost" in cells["AdaHessian"][wine]
    assert not any(mark in cell for cell in cells["F3EO"] for mark in "▲▼")
    bold = re.findall(r'<td class="best">([\d.]+)', table)
    assert len(bold) == len(TASKS)


def test_runs_that_failed_are_listed_together(page):
    text = plain(page[page.index('id="failures"') :])
    assert "wine AdaHessian 2, 5 diverged the loss was no finite number any more" in text
    assert "cifar10-10k IVON 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 diverged" in text
    assert "F3EO , rule=direct 3 diverged" in text


def test_the_ablation_is_compared_with_the_method_as_it_is(page):
    text = plain(page[page.index('id="ablation"') : page.index('id="sensitivity"')])
    assert re.search(r"F3EO, estimator=batch 9[12]\.\d\d ▼ -\d\.\d+ ", text)
    assert re.search(r"F3EO, fraction=1 9[23]\.\d\d [+-]0\.\d+ ", text)
    assert "1 lost" in text and "F3EO over muon 9" in text


def test_the_grids_hold_the_means_of_what_finished(folder):
    grids = sensitivity(load(folder), "mnist1d-mlp")
    assert set(grids) == {("direct", "fixed"), ("coupled", "fixed"), ("decoupled", "ratio")}
    direct = grids["direct", "fixed"]
    assert len(direct) == 16 and direct[1.0, 1.0] != direct[1.0, 1.0]  # nan: every run lost
    assert grids["decoupled", "ratio"][0.3, 0.1] == pytest.approx(91.5)  # 92 and 91


def test_time_to_the_target_is_steps_times_price_in_seconds(page, summary):
    rows = [r for r in results(tasks=("wine",)) if r["method"] == "sam"]
    steps = sorted(r["target"]["step"] for r in rows)
    median = (steps[4] + steps[5]) / 2 * 2.0
    assert summary["time_to_target"]["wine"]["sam"] == pytest.approx(median)
    text = plain(page[page.index('id="targets"') : page.index('id="profile"')])
    assert "in seconds" in text and f"{median * 0.002:.3f} {steps[5]} steps 10 of 10" in text
    assert summary["time_to_target"]["cifar10-10k"]["ivon"] is None


def test_searched_and_chosen_settings_are_there(page):
    text = plain(page[page.index('id="settings"') : page.index('id="failures"')])
    assert "lr 0.05 … 2.0, weight_decay 0.0001 … 0.01" in text
    assert "as always" in text and "lr 0.3, weight_decay 0.001" in text


FEW = ("sgd", "sam", "f3eo")
PARTIAL = {
    "one seed": (results(1, TASKS[:2], FEW), "With fewer than 5 seeds nothing is tested."),
    "one task": (results(5, ("wine",), FEW), "No ablation has been run."),
    "without ours": (results(5, ("wine",), ("sgd", "sam")), "the goals cannot be judged"),
    "one method": (results(5, ("wine",), ("f3eo",)), "No trials of the tuning are kept here."),
    "a method missing": (
        results(5, ("wine",), FEW) + results(5, ("digits-mlp",), FEW[1:]),
        "digits-mlp has no runs of sgd.",
    ),
    "a seed missing": (
        results(5, ("wine",), FEW)[:-1],
        "Some methods have fewer than 5 seeds on wine.",
    ),
    "nothing finished": ([row("wine", "sgd", s, None) for s in range(5)], "No grids"),
    "variants alone": (
        [r for r in variants(5) if r["task"] == "mnist1d-mlp"],
        "There is no run of f3eo",
    ),
    "bare": (
        [
            r
            | dict.fromkeys(("curve", "target", "best"))
            | {"final": {"test_accuracy": 0.5 + n / 99}}
            for n, r in enumerate(results(5, ("wine",), FEW))
        ],
        "No ablation",
    ),
    "failed before the first step": (
        [
            r
            | dict.fromkeys(("final", "curve", "target", "best", "steps", "gradient_equivalents"))
            | {"status": "failed", "traceback": "deep", "error": "<b>bad"}
            for r in results(5, ("wine",), FEW)
        ],
        "No ablation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTIAL)
def test_a_study_that_is_not_complete_gives_a_page_that_says_so(name, tmp_path):
    rows, message = PARTIAL[name]
    written = report(synthetic.write(tmp_path / "part", rows))
    text = plain(written.read_text())
    assert "This study is not complete." in text and message in text
    json.loads((tmp_path / "part/summary.json").read_text(), parse_constant=pytest.fail)


def test_what_a_study_is_made_of_cannot_inject_markup(tmp_path):
    rows, _ = PARTIAL["failed before the first step"]
    page = report(synthetic.write(tmp_path / "part", rows)).read_text()
    assert "<b>bad" not in page and "&lt;b&gt;bad" in page


def test_a_complete_study_has_no_gaps(folder):
    assert gaps(load(folder)) == []


def test_gaps_are_measured_against_what_was_asked():
    asked = synthetic.asked(TASKS[:2], FEW) | {"seeds": 6}
    text = " ".join(gaps(StudyData("x", results(5, TASKS[:1], FEW[:2]), asked=asked)))
    assert f"Of the tasks asked for, {TASKS[1]} has no run yet." in text
    assert "Of the methods asked for, f3eo has no run yet." in text
    assert f"Some methods have fewer than 6 seeds on {TASKS[0]}." in text


def test_the_same_rows_give_the_same_page_in_any_order():
    rows = results(5, TASKS[:2], FEW)
    mixed = random.Random(0).sample(rows, len(rows))
    first, second = (Analysis(StudyData("x", found)) for found in (rows, mixed))
    drawn = pictures(first)
    assert drawn == pictures(second)
    assert render(first, drawn) == render(second, drawn)


def test_parquet_alone_is_enough_and_newer_lines_replace_its_rows(tmp_path):
    rows = results(5, ("wine",), FEW)
    (tmp_path / "lines").mkdir()
    archive.write(rows, tmp_path / "results.parquet")
    kept, given = load(tmp_path), load(synthetic.write(tmp_path / "lines", rows))
    assert Analysis(kept).tasks["wine"].values == Analysis(given).tasks["wine"].values
    synthetic.write(tmp_path, [rows[0] | {"status": "failed", "final": None}])
    again = load(tmp_path)
    assert len(again.results) == len(rows)
    assert [r["status"] for r in again.results].count("failed") == 1


def test_the_command_line(tmp_path, monkeypatch, capsys):
    folder = synthetic.write(tmp_path / "small", results(5, ("wine",), FEW))
    for path, code, words in (
        (folder, 0, "small/report.html"),
        (tmp_path, 2, "a study's folder holds results.jsonl or results.parquet"),
    ):
        monkeypatch.setattr("sys.argv", ["f3eo", "report", str(path)])
        assert cli.main() == code
        streams = capsys.readouterr()
        assert words in " ".join((streams.out + streams.err).split())
    assert {path.name for path in folder.iterdir()} == {
        "pictures", "report.html", "results.jsonl", "summary.json", "summary.md",
    }  # fmt: skip


def test_the_summary_is_a_table_that_can_be_committed(folder):
    text = (folder / "summary.md").read_text()
    assert "| significantly better than SGD on at least 75 % of the tasks, worse on none |" in text
    assert "10 of 11 | 10 of 11 | reached |" in text
    assert "Test loss in nats; bold" in text and "Expected calibration error in %; bold" in text
    assert "Robustness, means over tasks; bold: best." in text
    assert re.search(r"\| Muon \|.* \*\*98\.\d\d\*\* ▲ \|", text)
    assert "critical difference 4.55" in text
    assert len(text) + (folder / "summary.json").stat().st_size < 60_000


def test_a_task_says_which_files_it_was_read_from_where_there_is_a_choice():
    rows = [row(TASKS[0], METHODS[0], seed, 50.0) | {"source": "copies"} for seed in range(2)]
    study = StudyData("any", rows, asked={"tasks": {TASKS[0]: {"description": "pictures"}}})
    assert study.description(TASKS[0]) == "pictures; copies"
    assert study.description("unknown") == ""


def test_the_best_in_markdown_keeps_its_mark():
    cells = [Cell("9", best=True, mark="better"), Cell("8", mark="worse")]
    assert markdown(Table(["a", "b"], {"sgd": cells}))[2] == "| SGD | **9** ▲ | 8 ▼ |"
