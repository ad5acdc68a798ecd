"""Tables in a page of the documentation."""

import shutil

import pytest

from bench import synthetic
from bench.continual.report.made_up import study
from docs.pages import PAGES
from f3eo.bench.continual.report import summary as of_streams
from f3eo.bench.continual.report.study import StreamStudy
from f3eo.bench.report import summary as of_methods
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.marked import BEGIN, END, write_marked
from f3eo.bench.report.study_data import load


def streams(_):
    rows = study(("sinusoid",), ("sgd", "f3eo"), stages=3, equals=("time",))
    return of_streams.tables(StreamStudy("any", rows))


def methods(folder):
    return of_methods.tables(Analysis(load(synthetic.whole(folder / "any"))))


@pytest.mark.parametrize(("name", "tables"), [("streams", streams), ("benchmark", methods)])
def test_a_page_gets_its_tables_and_keeps_the_rest(name, tables, tmp_path):
    path, lines = tmp_path / "page.md", tables(tmp_path)
    shutil.copy(PAGES[f"{name}.md"], path)
    before = path.read_text()
    write_marked(path, lines)
    once = path.read_text()
    assert once.startswith(before[: before.index(BEGIN)])
    assert once.endswith(before[before.index(END) :]) and once.count(END) == 1
    assert "| F3EO | " in once and "\n".join(lines) in once
    write_marked(path, lines)
    assert path.read_text() == once


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", BEGIN + END + END])
def test_a_page_without_both_marks_once_in_order_stays_as_it_is(text, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"must have the lines .* once each, in this order"):
        write_marked(path, ["a table"])
    assert path.read_text() == text
