"""What docs/streams.md says of the committed rows."""

import json
import runpy
from collections import Counter
from statistics import fmean

import pytest

from docs.pages import ROOT, prose, text
from f3eo.bench.continual.report import load
from f3eo.bench.continual.report.differences import compare
from f3eo.bench.continual.report.quantities import AVERAGE, LAST
from f3eo.bench.continual.report.study import Place
from f3eo.bench.continual.report.summary import tables
from f3eo.bench.continual.report.summary import text as summary_text
from f3eo.bench.report.marked import BEGIN, END

REPORT = runpy.run_path(str(ROOT / "results/tradeoff/report.py"))
ROWS = REPORT["rows"]()
STUDY = load(ROOT / "results/streams")
EIGHT = (
    "permuted-mnist",
    "rotated-mnist",
    "block-mnist",
    "split-mnist-class",
    "split-mnist-domain",
    "split-mnist-task",
    "mnist-fashion",
    "sinusoid",
)
PERMUTED, ROTATED, BLOCKS, CLASS, DOMAIN, TASK, FASHION, SINUSOID = (
    Place(name, "steps") for name in EIGHT
)
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


def relations(ours, rival):
    """By stream how our average stands to the rival's, where it is not level."""
    found = {place: against(place, AVERAGE, ours, rival).relation for place in STUDY.places}
    return {place: relation for place, relation in found.items() if relation != "level"}


def lines_between(begin, end):
    """The lines of the page between two marks."""
    _, _, after = text("streams.md").partition(f"{begin}\n\n")
    return after.partition(f"\n\n{end}")[0].splitlines()


def test_the_tables_and_the_summary_are_those_of_the_rows():
    assert lines_between(BEGIN, END) == tables(STUDY)
    summary = (ROOT / "results/streams/summary.md").read_text("utf-8")
    assert summary == summary_text(STUDY)


def test_the_page_counts_the_complete_streams():
    counts = Counter((p, r["learner"]) for p, rows in STUDY.places.items() for r in rows)
    assert set(counts.values()) == {STUDY.asked["seeds"]}
    assert list(STUDY.places) == [Place(stream, "steps") for stream in EIGHT]
    assert "Eight of nine streams are complete, at equal steps" in prose("streams.md")


def test_the_page_says_where_f3eo_alone_gains():
    said, found = prose("streams.md"), relations("f3eo", "sgd")
    assert found == {PERMUTED: "better", ROTATED: "better", BLOCKS: "better", DOMAIN: "worse"}
    gains = [against(place, AVERAGE, "f3eo", "sgd").mean for place in found]
    first = (
        "gains {:.1f} points over SGD on permutations, {:.1f} on rotations and {:.1f} on permuted"
    )
    assert first.format(*gains) in said
    assert f"loses {-gains[3]:.1f} on Split-MNIST by domain" in said
    better = dict.fromkeys((PERMUTED, ROTATED, BLOCKS, CLASS, DOMAIN), "better")
    assert relations("muon", "f3eo") == {**better, TASK: "worse"}
    assert "Muon is better than F3EO on five streams, worse on Split-MNIST by task" in said


def test_the_page_says_what_the_recipe_of_stable_sgd_changes():
    said, found = prose("streams.md"), relations("f3eo_stable", "stable_sgd")
    assert found == {PERMUTED: "worse", ROTATED: "better"}
    lost, gained = (against(place, AVERAGE, "f3eo_stable", "stable_sgd").mean for place in found)
    assert f"gains {gained:.1f} points over the recipe on rotations" in said
    assert f"loses {-lost:.1f} on permutations" in said
    assert against(ROTATED, LAST, "f3eo_stable", "stable_sgd").relation == "worse"
    tried = [r for r in STUDY.trials if r["stream"] == PERMUTED.stream]
    best = [
        max(100 * fmean(r["scores"][-1]) for r in tried if r["learner"] == learner)
        for learner in ("f3eo_stable", "stable_sgd")
    ]
    assert f"the best of its six settings was {best[1] - best[0]:.1f} points below" in said


def test_the_page_says_what_importance_and_a_memory_change():
    said = prose("streams.md")
    assert relations("f3eo_elastic", "ewc") == {ROTATED: "better"}
    found = against(ROTATED, AVERAGE, "f3eo_elastic", "ewc")
    assert f"gains {found.mean:.1f} over EWC on rotations" in said
    assert relations("f3eo_stable_elastic", "stable_ewc") == {
        PERMUTED: "worse",
        DOMAIN: "better",
        SINUSOID: "worse",
    }
    found = relations("f3eo_memory", "replay")
    assert found == dict.fromkeys((PERMUTED, ROTATED, FASHION), "better")
    gains = [against(place, AVERAGE, "f3eo_memory", "replay").mean for place in found]
    assert "gains {:.1f}, {:.1f} and {:.1f} over replay".format(*gains) in said
    better = dict.fromkeys((PERMUTED, BLOCKS, DOMAIN), "better")
    assert relations("replay_sam", "f3eo_memory") == {**better, TASK: "worse"}
    assert relations("ewc", "ewc_batch") == {}


def test_the_table_of_the_trade_off_is_that_of_its_rows():
    found = lines_between("<!-- table of the trade-off -->", "<!-- end of the trade-off -->")
    assert found == REPORT["table"](ROWS)


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
