"""What docs/streams.md says of the committed rows."""

import json
import runpy
from statistics import fmean

import pytest

from docs.pages import ROOT, prose, text
from f3eo.bench.continual.report import load
from f3eo.bench.continual.report.differences import compare
from f3eo.bench.continual.report.quantities import AVERAGE, FORGETTING, LAST
from f3eo.bench.continual.report.study import Place
from f3eo.bench.continual.report.summary import tables
from f3eo.bench.report.marked import BEGIN, END

REPORT = runpy.run_path(str(ROOT / "results/tradeoff/report.py"))
ROWS = REPORT["rows"]()
STUDY = load(ROOT / "results/streams")
ROTATED, FASHION = Place("rotated-mnist", "steps"), Place("mnist-fashion", "steps")
LEARNERS = ["ewc", "ewc_batch", "si", "f3eo_elastic", "f3eo_stable_elastic", "stable_ewc"]


def held_out(learner, number="last"):
    """By λ the means on held-out samples, from strong to weak; of SGD by None."""
    rows = [r for r in ROWS if (r["learner"], r["kind"]) == (learner, "trial")]
    found = {}
    for row in rows:
        found.setdefault(strength(row), []).append(row[number])
    assert all(len(values) == 5 for values in found.values())
    return {value: fmean(values) for value, values in found.items()}


def strength(row):
    options = row["options"]
    return options["penalty"] if "penalty" in options else options.get("strength")


def chosen(learner):
    (value,) = {strength(r) for r in ROWS if (r["learner"], r["kind"]) == (learner, "result")}
    return value


def against(place, quantity, ours, rival):
    return compare(STUDY.values(place, quantity), ours, rival)


def test_the_tables_are_those_of_the_rows():
    _, _, after = text("streams.md").partition(f"{BEGIN}\n\n")
    assert after.partition(f"\n\n{END}")[0].splitlines() == tables(STUDY)


def test_what_the_page_says_of_the_streams():
    said = prose("streams.md")
    assert list(STUDY.places) == [ROTATED, FASHION] and "Two of nine streams are complete" in said
    found = against(ROTATED, FORGETTING, "f3eo", "sgd")
    assert found.relation == "better"
    for rival in ("stable_sgd", "f3eo_stable", "stable_ewc", "f3eo_stable_elastic"):
        assert against(ROTATED, FORGETTING, rival, "f3eo").mean > 5 * found.mean
    found = against(ROTATED, AVERAGE, "f3eo_stable", "stable_sgd")
    assert f"gains {found.mean:.1f} points of average accuracy over the recipe" in said
    assert found.relation == "better"
    assert against(ROTATED, LAST, "f3eo_stable", "stable_sgd").relation == "worse"
    found = against(ROTATED, AVERAGE, "f3eo_elastic", "ewc")
    assert f"gains {found.mean:.1f} over EWC" in said and found.relation == "better"
    assert against(ROTATED, AVERAGE, "f3eo_stable_elastic", "stable_ewc").relation == "level"
    pairs = [against(place, AVERAGE, "f3eo_memory", "replay") for place in STUDY.places]
    assert all(pair.relation == "better" for pair in pairs)
    assert f"gains {fmean(pair.mean for pair in pairs):.1f} over replay in the mean" in said
    for place in STUDY.places:
        for pair in (("f3eo_memory", "replay_sam"), ("ewc", "ewc_batch")):
            assert against(place, AVERAGE, *pair).relation == "level"


def test_the_table_of_the_trade_off_is_that_of_its_rows():
    _, _, after = text("streams.md").partition("<!-- table of the trade-off -->\n\n")
    assert after.partition("\n\n<!-- end")[0].splitlines() == REPORT["table"](ROWS)


def test_its_strengths_are_chosen_on_held_out_samples_as_the_page_says():
    bound = held_out("sgd")[None] - 0.005
    sgd = next(row["options"] for row in ROWS if row["learner"] == "sgd")
    assert {row["learner"] for row in ROWS} == {"sgd", *LEARNERS}
    assert all(row["options"] | sgd == row["options"] for row in ROWS)  # its rate and momentum
    for learner in LEARNERS:
        tried = held_out(learner)
        values = list(tried)
        assert values == pytest.approx([values[0] / 2**n for n in range(len(values))])
        assert [value for value in values if tried[value] >= bound] == values[-1:]
        assert chosen(learner) == values[-1] and len(values) > 1


def test_what_the_page_says_of_it():
    found, said = REPORT["against_sgd"](ROWS), prose("streams.md")
    assert list(found) == LEARNERS
    base = fmean(REPORT["of"](ROWS, "sgd", "forgetting"))
    share = {name: 100 * less.mean / base for name, (less, _) in found.items()}
    assert f"forgets {share['f3eo_elastic']:.0f} % less than SGD" in said
    assert f"it forgets {share['f3eo_stable_elastic']:.0f} % less, at the last task of SGD" in said
    for name in ("f3eo_elastic", "f3eo_stable_elastic"):
        less, last = found[name]
        assert less.p < 0.05 < last.p and last.low > -1 and last.n == 20
    assert abs(found["f3eo_stable_elastic"][1].mean) < 0.005
    assert [share[name] for name in ("ewc", "stable_ewc", "si")] == pytest.approx([25] * 3, abs=3)


def test_what_the_page_says_of_the_held_out_samples():
    sgd, ewc, ours = (held_out(name) for name in ("sgd", "ewc", "f3eo_elastic"))
    assert all(ours[value] > ewc[value] for value in set(ours) & set(ewc))
    value = chosen("f3eo_elastic")
    below = [100 * (sgd[None] - last[value]) for last in (ewc, ours)]
    assert below == pytest.approx([0.8, 0.4], abs=0.05)
    forgotten = [held_out(name, "forgetting")[value] for name in ("ewc", "f3eo_elastic")]
    assert forgotten[0] < forgotten[1]
    batch = held_out("ewc_batch")
    assert [batch[10 * value] for value in ewc] == pytest.approx(list(ewc.values()), abs=0.004)


def test_every_run_of_it_finished():
    keys = [row["key"] for row in ROWS]
    assert len(set(keys)) == len(keys) and not any(row["error"] for row in ROWS)
    assert {json.dumps(sorted(row)) for row in ROWS} == {json.dumps(sorted(ROWS[0]))}
