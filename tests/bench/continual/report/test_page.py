"""The page of a stream study, its pictures, its summary, and the command that writes them."""

import base64
import html
import json
import re

import pytest

from bench import synthetic
from bench.continual.report.made_up import lost_row, row, study
from f3eo import cli
from f3eo.bench.continual.report import is_stream_study, load, write
from f3eo.bench.continual.report.claims import CLAIMS, RULE, SOURCE
from f3eo.bench.continual.report.gaps import gaps
from f3eo.bench.continual.report.goals import GOALS
from f3eo.bench.continual.report.matrices import matrices
from f3eo.bench.continual.report.names import label
from f3eo.bench.continual.report.page import render
from f3eo.bench.continual.report.pictures import pictures
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.continual.report.summary import tables, text
from f3eo.bench.execute import archive

LEARNERS = ("sgd", "sam", "f3eo", "ewc", "replay", "f3eo_memory")
STREAMS = ("rotated-mnist", "sinusoid")
SERIES = {"seen", "first", "trace", "relative", "energy", "complexity", "matrix", "adaptation"}

SINUSOID = study(("sinusoid",), LEARNERS, stages=3, equals=("time",))


def store(folder, rows):
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(made) + "\n" for made in rows)
    (folder / "results.jsonl").write_text(lines)
    return folder


def plain(page):
    """The text of a page."""
    body = re.sub(r"<style>.*?</style>", "", page[page.index("<body>") :], flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def rows():
    made = study(("rotated-mnist",), LEARNERS, stages=3, equals=("steps",))
    return made + SINUSOID


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    folder = store(tmp_path_factory.mktemp("streams") / "made-up", rows)
    write(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


def edge(*rows):
    """The page of a small study as text, without pictures."""
    return plain(render(StreamStudy("small", rows), {}))


def test_the_page_needs_nothing_but_itself(page):
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|<script|<link|url\(|https?://", page)
    for image in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page):
        inside = base64.b64decode(image).decode()
        assert not re.search(r'href="(?!#|data:image/png)', inside)


def test_every_section_learner_and_number_is_there(page, folder):
    shown = plain(page)
    for section in ("claims", "goals", "protocol", *STREAMS, "costs", "settings", "failures"):
        assert f'id="{section}"' in page
    for learner in LEARNERS:
        assert shown.count(label(learner)) > 8
    assert "3 stages, one pass through all training samples of each, batches of 10." in shown
    assert SOURCE in shown and RULE in shown
    made = load(folder)
    for line in text(made).splitlines():
        if line.startswith("| ") and "±" in line:  # the tables of numbers and of unseen tasks
            name, *cells = (cell.strip("* ") for cell in line.strip("| ").split("|"))
            assert name in shown
            for cell in cells:
                for part in cell.replace("**", "").split(" ± "):
                    assert part in shown


def test_a_part_of_the_test_sets_is_said_so():
    whole = row("rotated-mnist", "sgd", 0)
    part = whole | {"config": whole["config"] | {"samples": 5000, "tests": 2000}}
    words = "5,000 training samples of each, batches of 10, 2,000 test samples of each."
    assert words in edge(part) and "test samples of each" not in edge(whole)


def test_pictures_lie_beside_the_page_and_in_it(folder, page):
    places = ("rotated-mnist-steps", "sinusoid-time")
    names = {path.stem for path in (folder / "pictures").iterdir()}
    assert names == {f"{series}-{place}" for series in SERIES for place in places}
    for name in names:
        svg = (folder / "pictures" / f"{name}.svg").read_bytes()
        assert base64.b64encode(svg).decode() in page
    curves = (folder / "pictures/seen-rotated-mnist-steps.svg").read_text()
    assert all(label(learner) in curves for learner in LEARNERS)


def test_equal_rows_give_equal_bytes(folder, page):
    for name, svg in pictures(StreamStudy("again", SINUSOID)).items():
        assert svg == (folder / "pictures" / f"{name}.svg").read_bytes()
    made = load(folder)
    images = {path.stem: path.read_bytes() for path in (folder / "pictures").iterdir()}
    assert render(made, images) == page
    assert text(made) == (folder / "summary.md").read_text()


def test_the_order_of_rows_does_not_matter(rows):
    forth, back = (StreamStudy("same", list(r)) for r in (rows, reversed(rows)))
    assert text(forth) == text(back) and tables(forth) == tables(back)


def test_the_matrix_is_the_mean_over_finished_runs():
    rows = [
        row("permuted-mnist", "sgd", s, stages=2, learnt=0.8 + s / 10, lost=0.1) for s in (0, 1)
    ]
    found = matrices(
        StreamStudy("m", [*rows, lost_row("permuted-mnist", "sgd", 2)]),
        Place("permuted-mnist", "steps"),
    )
    assert found["sgd"].round(6).tolist() == [[85.0, 12.0], [75.0, 85.0]]


def test_a_row_of_f3eo_is_marked_and_groups_have_heads(page):
    assert (
        page.count('<tr class="ours"><td><span class="who" style="--own: #c2185b">F3EO</span>') > 5
    )
    shown = plain(page)
    for head in ("Without memory or penalty", "With a penalty on", "With a memory of old samples"):
        assert head in shown


def test_what_is_lacking_is_said(rows):
    some = [made for made in rows if (made["stream"], made["learner"]) != ("sinusoid", "sam")]
    made = StreamStudy("part", some, asked={"learners": ["si"], "seeds": 6})
    said = " ".join(gaps(made))
    assert "At sinusoid, equal seconds there are no runs of SAM." in said
    assert "No run yet of these learners: si." in said
    assert "fewer than 6 seeds" in said
    assert "There are no runs at equal steps." in gaps(StreamStudy("part", SINUSOID))
    assert not gaps(StreamStudy("all", SINUSOID, asked={"equal": ["time"], "seeds": 5}))
    shown = plain(render(made, {}))
    assert "This study is not complete." in shown and "so far" in shown


def test_one_seed_and_one_stage_give_a_page_that_says_so():
    one = edge(row("permuted-mnist", "sgd", 0), row("permuted-mnist", "f3eo", 0))
    assert "With fewer than 5 seeds nothing is tested." in one and "one run" in one
    assert "nothing that could be tested" in one
    short = [row("permuted-mnist", n, 0, stages=1) for n in ("sgd", "f3eo")]
    assert "Where a stream has one stage, nothing can be forgotten or transferred." in edge(*short)
    assert "there are no curves" in edge(*short)
    assert set(pictures(StreamStudy("short", short))) == {
        "matrix-permuted-mnist-steps", "adaptation-permuted-mnist-steps",
    }  # fmt: skip


def test_runs_that_diverged_are_listed_and_a_study_of_them_alone_has_a_page():
    lost = lost_row("permuted-mnist", "sam", 3) | {"traceback": "Traceback: here"}
    shown = edge(row("permuted-mnist", "sgd", 0), lost | {"seed": 4, "key": "other"}, lost)
    assert "1 of 3 runs finished" in shown and "SGD 0 finished" not in shown
    assert (
        "permuted-mnist, equal steps SAM 3, 4 diverged the loss was not finite in stage 2" in shown
    )
    assert "Traceback: here" in shown
    alone = StreamStudy("lost", [lost])
    assert pictures(alone) == {}
    assert "No run finished." in plain(render(alone, {}))


def test_without_f3eo_the_page_has_tables_and_no_verdict():
    shown = edge(*(row("permuted-mnist", n, s) for n in ("sgd", "sam") for s in range(5)))
    assert "There is no run of F3EO, so its claims cannot be judged." in shown
    assert shown.count("not judged") == len(CLAIMS) + len(GOALS)
    assert "86.00" in shown


def test_learners_and_streams_of_another_version_have_their_names():
    shown = edge(row("old-stream", "old-learner", 0), row("old-stream", "f3eo", 0))
    assert "old-stream" in shown and "old-learner" in shown


def test_a_study_in_parquet_is_read_too(tmp_path, rows):
    folder = tmp_path / "packed"
    folder.mkdir()
    archive.write(rows, folder / "results.parquet")
    assert is_stream_study(folder)
    assert tables(load(folder)) == tables(StreamStudy("packed", rows))


def test_damaged_lines_are_told_and_left_out(tmp_path):
    folder = store(tmp_path / "torn", [row("permuted-mnist", "sgd", 0, stages=1)])
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"stream": "permuted')
    told = []
    write(folder, told.append)
    assert len(told) == 1 and "1 damaged line(s)" in told[0]
    assert "1 damaged line(s)" in plain((folder / "report.html").read_text())


def test_the_command_knows_a_folder_of_streams(tmp_path, monkeypatch, capsys):
    folder = store(tmp_path / "few", [row("permuted-mnist", "sgd", 0, stages=1)])
    monkeypatch.setattr("sys.argv", ["f3eo", "report", str(folder)])
    assert cli.main() == 0
    assert f"Report: {folder / 'report.html'}" in capsys.readouterr().out
    assert "f3eo stream" in (folder / "report.html").read_text()


def test_other_folders_are_no_stream_studies(tmp_path):
    assert not is_stream_study(tmp_path)
    other = tmp_path / "methods"
    other.mkdir()
    rows = [synthetic.row("wine", "sgd", 0, 90.0)]
    archive.write(rows, other / "results.parquet")
    assert not is_stream_study(other)
    (other / "results.parquet").write_bytes(b"torn")
    assert not is_stream_study(other)
    with pytest.raises(
        ValueError, match=r"no results of streams in .*give the folder that it named"
    ):
        load(tmp_path)
