"""What docs/streams.md says of the committed rows."""

import json
import runpy
from statistics import fmean

import pytest

from docs.pages import ROOT, prose, text

REPORT = runpy.run_path(str(ROOT / "results/tradeoff/report.py"))
ROWS = REPORT["rows"]()
LEARNERS = ["ewc", "ewc_batch", "si", "f3eo_elastic"]


def test_the_table_of_the_trade_off_is_that_of_its_rows():
    _, _, after = text("streams.md").partition("<!-- table of the trade-off -->\n\n")
    assert after.partition("\n\n<!-- end")[0].splitlines() == REPORT["table"](ROWS)


def test_its_strengths_are_chosen_on_held_out_samples_as_the_page_says():
    held_out = [row for row in ROWS if row["kind"] == "trial"]
    bound = fmean(row["last"] for row in held_out if row["learner"] == "sgd") - 0.005
    for learner in [*LEARNERS, "f3eo_stable_elastic"]:
        name = "penalty" if learner.startswith("f3eo") else "strength"
        tried = {row["options"][name] for row in held_out if row["learner"] == learner}
        kept = []
        for value in tried:
            own = [
                r for r in held_out if (r["learner"], r["options"].get(name)) == (learner, value)
            ]
            assert len(own) == 3
            kept += [value] if fmean(row["last"] for row in own) >= bound else []
        used = {
            r["options"][name] for r in ROWS if (r["learner"], r["kind"]) == (learner, "result")
        }
        assert used == set(kept) and len(kept) == (learner in LEARNERS)
        assert not kept or kept == [min(tried)]  # tried from strong to weak, to the first that does


def test_what_the_page_says_of_it():
    found = REPORT["against_sgd"](ROWS)
    assert list(found) == LEARNERS
    base = fmean(REPORT["of"](ROWS, "sgd", "forgetting"))
    less, last = found["f3eo_elastic"]
    assert f"forgets {100 * less.mean / base:.0f} % less than SGD" in prose("streams.md")
    assert less.p < 0.05 < last.p and last.low < -1 and last.n == 20
    less, last = found["ewc"]
    assert less.mean / base == pytest.approx(0.5, abs=0.01) and last.p < 0.05 and last.mean < 0


def test_every_run_of_it_finished():
    keys = [row["key"] for row in ROWS]
    assert len(set(keys)) == len(keys) and not any(row["error"] for row in ROWS)
    assert {json.dumps(sorted(row)) for row in ROWS} == {json.dumps(sorted(ROWS[0]))}
