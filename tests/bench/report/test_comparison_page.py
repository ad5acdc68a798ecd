import base64
import copy
import re

import pytest

from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.report.comparison_page import render, write_report
from f3eo.bench.report.page import fixed, number
from f3eo.bench.tasks import TASKS


@pytest.fixture(scope="module")
def rows(make_row):
    """Three seeds of all methods on two tasks, F3EO clearly ahead and SGD failed once."""
    levels = {"sgd": 0.5, "adamw": 0.3, "muon": 0.301, "sam": 0.5, "f3eo": 0.9}
    found = [
        make_row(levels[method] + 0.01 * seed, method=method, task=task, seed=seed)
        for task in ("digits-mlp", "mnist1d-mlp")
        for method in USUAL
        for seed in range(3)
    ]
    lost = {"status": "failed", "final": None, "curve": None, "error": "ValueError: <b>bad</b>"}
    return [*found, make_row(method="sgd", seed=7) | lost | {"traceback": "Traceback: deep"}]


@pytest.fixture(scope="module")
def page(rows):
    return render(rows, "my comparison")


def test_the_page_needs_nothing_but_itself(page):
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|<script|<link|url\(", page)
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(images) == 6
    for image in images:
        svg = base64.b64decode(image).decode()
        assert svg.startswith("<?xml")
        assert not re.search(r'href="(?!#)', svg)


def test_every_method_task_and_failure_is_there(page, rows):
    for method in USUAL:
        assert f"{METHODS[method].label}</td>" in page
    assert "<h2>digits-mlp</h2>" in page and "<h2>mnist1d-mlp</h2>" in page
    assert "30 of 31 runs finished" in page
    assert "ValueError: &lt;b&gt;bad&lt;/b&gt;" in page and "Traceback: deep" in page
    assert "<b>bad" not in page
    assert "3 of 4" in page


def test_the_table_holds_means_and_intervals(page):
    # accuracies 90, 91, 92 %: mean 91, half width 4.3027 * 1 / sqrt(3) = 2.48
    assert "91.0 <small>± 2.5</small>" in page
    assert "1.090 <small>± 0.025</small>" in page


def test_calibration_is_judged_where_it_was_measured(rows):
    for row in (rows := copy.deepcopy(rows)):
        if row["final"]:
            row["final"]["calibration_error"] = 0.3 - row["final"]["test_accuracy"] / 5
    sentence = "F3EO has the lowest mean expected calibration error"
    assert sentence in render(rows, "x")
    for row in rows:
        if row["final"]:
            del row["final"]["calibration_error"]
    page = render(rows, "x")
    assert sentence not in page and "calibration" not in page


def test_verdicts_are_plain_sentences(page):
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "F3EO has the highest mean test accuracy: it is better than SGD, SAM, Muon and" in text
    assert "AdamW is not distinguishable from Muon; worse than F3EO, SGD and SAM" in text


def test_configuration_machine_versions_and_command_are_there(page, rows):
    assert "f3eo compare --name made-up" in page
    assert rows[0]["machine"]["processor"] in page
    assert f"torch {rows[0]['versions']['torch']}" in page
    assert "lr 0.3, momentum 0.9" in page
    assert "environments" not in page


@pytest.fixture(scope="module")
def many(make_row):
    """Every method twice at equal cost and once at equal time, in the opposite order there."""
    found = []
    for i, method in enumerate(METHODS):
        found += [make_row(0.3 + 0.02 * i, method=method, seed=seed) for seed in range(2)]
        found.append(make_row(0.9 - 0.02 * i, method=method, price=1.0 + i))
    lost = {"status": "failed", "final": None, "curve": None, "steps": None, "error": "no step"}
    return [row | lost if row["method"] == "bsam" else row for row in found]


def test_both_rankings_are_side_by_side(many):
    page = render(many, "x")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "digits-mlp: who comes where" in text and "equal cost and at equal time" in text
    last = len(METHODS) - 1  # F3EO, and one method fails
    first, final = f"{30 + 2 * last}.0 ± 0.0 10 2.00", f"{90 - 2 * last}.0 ± – 10 {last + 1}.00"
    assert f"F3EO 3 1 {first} {last} {final}" in text
    assert "bSAM 1 – failed – failed" in text
    assert "<h2>digits-mlp, equal time</h2>" in page and "Equal time." in text
    assert "<tr><td>digits-mlp, equal time</td><td><span" in page  # of the run that failed


def test_without_runs_of_equal_time_there_is_one_ranking(page):
    assert "who comes where" not in page and "equal time" not in page


def test_of_many_methods_the_sentences_are_folded_away(many, page):
    assert "<details><summary>What can be told apart" in render(many, "x")
    assert "<h3>What can be told apart" in page


def test_it_is_said_how_hyper_parameters_were_chosen(make_row):
    tuned = TASKS["digits-mlp"].options
    sgd, adam = (METHODS[name].options(tuned[name]) for name in ("sgd", "adam"))
    rows = [
        make_row(options=sgd),
        make_row(method="adam", options=adam),
        make_row(method="bsam"),
        make_row(method="sam", options={"lr": 7.0}),
        make_row(method="adam", task="mnist1d-mlp"),
        make_row(method="ivon", task="mnist1d-mlp", options={"ess": 4000}),
    ]
    page = render(rows, "x")
    chosen = re.findall(r'<td class="pale">([^<]+)</td></tr>', page)
    assert chosen == [
        "the task&#39;s", "the task&#39;s", "set by hand", "defaults",
        "defaults", "the task&#39;s",
    ]  # fmt: skip


def test_rows_of_two_machines_are_pointed_out(rows):
    other = rows[0] | {"machine": rows[0]["machine"] | {"cores": 999}}
    assert "The rows come from 2 environments" in render([other, *rows[1:3]], "x")


def test_a_gpu_is_named_before_the_processor_and_the_processor_alone_is_not(rows):
    here = rows[0]["machine"]
    gpu = rows[0] | {"machine": here | {"device": "Fake 1"}}
    old = rows[0] | {"machine": {name: here[name] for name in here if name != "device"}}
    pages = [" ".join(render([row], "x").split()) for row in (gpu, rows[0], old)]
    assert f"1 rows · Fake 1, {here['processor']}" in pages[0]
    assert all(f"1 rows · {here['processor']}" in page for page in pages[1:])


def test_warnings_of_runs_are_listed(make_row):
    page = render([make_row() | {"warnings": ["a step was skipped"]}], "x")
    assert "Runs that warned" in page and "a step was skipped" in page


def test_one_seed_gives_no_verdict(make_row):
    page = render([make_row(0.5), make_row(0.9, method="f3eo")], "x")
    assert "with a single seed nothing can be said about chance" in page
    assert "± –" in page


def test_a_page_can_be_written_without_any_finished_run(make_row):
    lost = make_row() | {"status": "diverged", "final": None, "error": "too steep"}
    page = render([lost], "x")
    assert "No run finished." in page and "too steep" in page
    assert "0 of 0 runs" in render([], "x")


def test_the_same_rows_give_the_same_page_in_one_file(rows, page, tmp_path):
    write_report(rows, tmp_path / "report.html", "my comparison")
    assert (tmp_path / "report.html").read_text() == page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_method_or_task_of_another_version_is_shown_by_its_name(make_row):
    rows = [make_row(seed=seed) | {"method": "lion", "task": "cifar"} for seed in range(2)]
    assert "lion</td>" in render(rows, "x")


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0.00"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (0.012345, "0.0123"),
        (1e-7, "1.00e-07"),
        (float("nan"), "–"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_very_large_numbers_do_not_widen_the_table():
    assert fixed(1234.5678, 2) == "1234.57" and fixed(4.75e10, 3) == "4.75e+10"
    assert fixed(float("nan"), 1) == fixed(float("inf"), 1) == "–"
