"""What docs/streams.md says of the committed rows."""

import json
import runpy
from collections import Counter
from statistics import fmean

import pytest

from docs.pages import ROOT, prose, text
from f3eo.bench.continual.report import load
from f3eo.bench.continual.report.differences import compare, difference
from f3eo.bench.continual.report.quantities import AVERAGE, LAST
from f3eo.bench.continual.report.study import EQUAL, Place
from f3eo.bench.continual.report.summary import tables
from f3eo.bench.continual.report.summary import text as summary_text
from f3eo.bench.report.marked import BEGIN, END

REPORT = runpy.run_path(str(ROOT / "results/tradeoff/report.py"))
ROWS = REPORT["rows"]()
REHEARSAL = ROOT / "results/rehearsal/rows.jsonl"
STUDY = load(ROOT / "results/streams")
ON = {
    "permuted-mnist": "permutations",
    "rotated-mnist": "rotations",
    "block-mnist": "permuted blocks",
    "split-mnist-class": "Split-MNIST by class",
    "split-mnist-domain": "Split-MNIST by domain",
    "split-mnist-task": "Split-MNIST by task",
    "mnist-fashion": "MNIST to Fashion-MNIST",
    "sinusoid": "sinusoids",
    "text": "text",
}
"""The streams, and their names on the page."""
NINE = tuple(ON)
PERMUTED, ROTATED, BLOCKS, CLASS, DOMAIN, TASK, FASHION, SINUSOID, TEXT = NINE
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


def against(stream, quantity, ours, rival, equal="steps"):
    return compare(STUDY.values(Place(stream, equal), quantity), ours, rival)


def relations(ours, rival, equal="steps"):
    """By stream how our average stands to the rival's, where it is not level."""
    found = {name: against(name, AVERAGE, ours, rival, equal).relation for name in NINE}
    return {name: relation for name, relation in found.items() if relation != "level"}


def gains(ours, rival, equal="steps"):
    """By stream our gain in the average, where it is not level."""
    found = relations(ours, rival, equal)
    return {name: against(name, AVERAGE, ours, rival, equal).mean for name in found}


def listed(streams, found):
    """Streams with their gains, as the page writes them."""
    signs = {name: "−" if found[name] < 0 else "+" for name in streams}
    words = [f"{ON[name]} ({signs[name]}{abs(found[name]):.1f})" for name in streams]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


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
    assert set(STUDY.places) == {Place(stream, equal) for stream in NINE for equal in EQUAL}
    assert "All nine streams are complete" in prose("streams.md")


def test_the_page_says_where_f3eo_alone_gains():
    said, found = prose("streams.md"), relations("f3eo", "sgd")
    assert found == {PERMUTED: "better", ROTATED: "better", BLOCKS: "better", DOMAIN: "worse"}
    gained = gains("f3eo", "sgd")
    first = (
        "gains {:.1f} points over SGD on permutations, {:.1f} on rotations and {:.1f} on permuted"
    )
    assert first.format(*(gained[name] for name in (PERMUTED, ROTATED, BLOCKS))) in said
    assert f"loses {-gained[DOMAIN]:.1f} on Split-MNIST by domain" in said
    better = dict.fromkeys((PERMUTED, ROTATED, BLOCKS, CLASS, DOMAIN, TEXT), "better")
    assert relations("muon", "f3eo") == {**better, TASK: "worse"}
    assert "Muon is better than F3EO on six streams, worse on Split-MNIST by task" in said
    last = STUDY.values(Place(TEXT, "steps"), LAST).means
    little = "On text SGD learns little: {:.0f} % on the last task, AdamW {:.0f}"
    assert little.format(last["sgd"].mean, last["adamw"].mean) in said


def test_the_page_says_what_the_recipe_of_stable_sgd_changes():
    said, found = prose("streams.md"), relations("f3eo_stable", "stable_sgd")
    assert found == {PERMUTED: "worse", ROTATED: "better"}
    gained = gains("f3eo_stable", "stable_sgd")
    assert f"gains {gained[ROTATED]:.1f} points over the recipe on rotations" in said
    assert f"loses {-gained[PERMUTED]:.1f} on permutations" in said
    assert against(ROTATED, LAST, "f3eo_stable", "stable_sgd").relation == "worse"
    tried = [r for r in STUDY.trials if r["stream"] == PERMUTED]
    best = [
        max(100 * fmean(r["scores"][-1]) for r in tried if r["learner"] == learner)
        for learner in ("f3eo_stable", "stable_sgd")
    ]
    assert f"the best of its six settings was {best[1] - best[0]:.1f} points below" in said


def test_the_page_says_what_importance_and_a_memory_change():
    said = prose("streams.md")
    assert relations("f3eo_elastic", "ewc") == {ROTATED: "better", TEXT: "worse"}
    found = against(ROTATED, AVERAGE, "f3eo_elastic", "ewc")
    lost = -against(TEXT, AVERAGE, "f3eo_elastic", "ewc").mean
    assert f"gains {found.mean:.1f} over EWC on rotations, loses {lost:.2f} on text" in said
    assert relations("f3eo_stable_elastic", "stable_ewc") == {
        PERMUTED: "worse",
        DOMAIN: "better",
        SINUSOID: "worse",
    }
    found = relations("f3eo_memory", "replay")
    assert found == dict.fromkeys((PERMUTED, ROTATED, FASHION, TEXT), "better")
    gained = gains("f3eo_memory", "replay")
    three = (gained[name] for name in (PERMUTED, ROTATED, FASHION))
    assert "gains {:.1f}, {:.1f} and {:.1f} over replay".format(*three) in said
    assert f"{gained[TEXT]:.1f} on text, and is level elsewhere" in said
    better = dict.fromkeys((PERMUTED, BLOCKS, DOMAIN), "better")
    worse = dict.fromkeys((TASK, TEXT), "worse")
    assert relations("replay_sam", "f3eo_memory") == better | worse


def rows_of(stream, learner):
    """A learner's results at equal steps, by seed."""
    rows = STUDY.places[Place(stream, "steps")]
    return sorted((r for r in rows if r["learner"] == learner), key=lambda row: row["seed"])


def sgd_step(row):
    """The length of a step along the mean of both losses, with its momentum's geometric sum."""
    options = row["config"]["options"]
    length = options["lr"] / (1 - options["momentum"])
    return length * (1 + options.get("memory_loss", 0))


def test_the_page_says_that_the_gain_on_text_is_a_longer_step():
    again = [json.loads(line) for line in REHEARSAL.read_text("utf-8").splitlines()]
    ours = rows_of(TEXT, "f3eo_memory")
    assert [r["seed"] for r in again] == [r["seed"] for r in ours] == list(range(5))
    assert {(r["learner"], r["status"]) for r in again} == {("replay", "finished")}
    assert [sgd_step(r) for r in again] == pytest.approx([sgd_step(r) for r in ours])
    tried = [r for r in STUDY.trials if (r["stream"], r["learner"]) == (TEXT, "f3eo_memory")]
    rates = [{r["config"]["options"]["lr"] for r in rows} for rows in (ours, tried)]
    assert rates[0] == {max(rates[1])}  # it chose the highest rate tried
    averages = [[100 * fmean(r["scores"][-1]) for r in rows] for rows in (again, ours)]
    said = "reaches {:.1f} % where F3EO has {:.1f}, which is significantly better"
    assert said.format(*map(fmean, averages)) in prose("streams.md")
    assert difference([a - b for a, b in zip(*averages, strict=True)]).relation == "better"


@pytest.mark.parametrize("stream", [PERMUTED, ROTATED, FASHION])
def test_replay_was_tried_at_longer_and_at_shorter_steps(stream):
    tried = [sgd_step(r) for r in STUDY.trials if (r["stream"], r["learner"]) == (stream, "replay")]
    (ours,) = {sgd_step(r) for r in rows_of(stream, "f3eo_memory")}
    assert min(tried) < ours < max(tried)


def test_the_page_says_what_a_step_costs_at_equal_seconds():
    steps = {
        (row["stream"], row["learner"]): sum(row["steps"])
        for row in STUDY.results
        if row["config"]["equal"] == "time" and row["status"] == "finished"
    }

    def prices(learner):
        """The steps of SGD over those of the learner, by stream."""
        return {name: steps[name, "sgd"] / steps[name, learner] for name in NINE}

    ours = prices("f3eo")
    others = [ours.pop(name) for name in (SINUSOID, TEXT)]
    first = (
        "A step of F3EO costs {:.1f} to {:.1f} of SGD's on images, {:.1f} on sinusoids, "
        "{:.1f} on text"
    )
    mean = [fmean(prices(name).values()) for name in ("f3eo_memory", "sam", "replay")]
    second = "in the mean of the streams it costs {:.1f} with a memory, SAM {:.1f}, replay {:.1f}"
    said = prose("streams.md")
    assert first.format(min(ours.values()), max(ours.values()), *others) in said
    assert second.format(*mean) in said


@pytest.mark.parametrize(
    ("ours", "rival", "better", "worse"),
    [
        ("f3eo", "sgd", "is better than SGD on {}", "worse on {}"),
        ("f3eo_stable", "stable_sgd", "is better than the recipe on {}", "worse on {}"),
        ("f3eo_elastic", "ewc", "is better than EWC on {}", "worse on {}"),
        ("f3eo_memory", "replay", "is better than replay on {}", "worse on {}"),
    ],
)
def test_the_page_says_where_f3eo_gains_at_equal_seconds(ours, rival, better, worse):
    found, said = gains(ours, rival, "time"), prose("streams.md")
    up, down = ([name for name in NINE if sign * found.get(name, 0) > 0] for sign in (1, -1))
    assert bool(up) == ("{}" in better)
    assert f"{better.format(listed(up, found))}, {worse.format(listed(down, found))}" in said


def test_the_page_says_what_is_learnt_of_the_last_task_at_equal_seconds():
    found = {name: against(name, LAST, "f3eo", "sgd", "time").relation for name in NINE}
    level = {ROTATED: "level", SINUSOID: "level"}
    assert found == dict.fromkeys(NINE, "worse") | level
    said = "the last task is learnt worse than by SGD on all streams but rotations and sinusoids"
    assert said in prose("streams.md")


def test_the_page_says_how_exact_ewc_stands_to_batch_squared_ewc():
    said = prose("streams.md")
    assert relations("ewc", "ewc_batch") == {}
    assert "**Exact and batch-squared EWC** are level on all streams" in said
    assert relations("ewc", "ewc_batch", "time") == {FASHION: "worse"}
    worse = (
        "**Exact EWC** is worse than batch-squared EWC from MNIST to Fashion-MNIST, level elsewhere"
    )
    assert worse in said


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
