"""What docs/benchmark.md and docs/tried.md say of the committed rows."""

import json

import polars as pl
import pytest

from docs.pages import ROOT, block, prose, table, text
from f3eo.bench.methods import METHODS, label
from f3eo.bench.methods.count import count
from f3eo.bench.plan.spaces import OWN, TUNED, WRAPPERS

STUDY = ROOT / "results/euclidean"
SUMMARY = json.loads((STUDY / "summary.json").read_text(encoding="utf-8"))
USUAL = json.loads((ROOT / "results/usual-base/summary.json").read_text(encoding="utf-8"))
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def rows():
    return pl.read_parquet(STUDY / "results.parquet")


def record(summary, rival):
    (found,) = [r for r in summary["records"] if r["rival"] == rival]
    return len(found["better"]), len(found["worse"])


def words(*counts):
    return tuple(NUMBERS[count] for count in counts)


def test_the_ranks_and_their_difference_that_says_something():
    ranks = SUMMARY["ranks"]
    order = sorted(ranks["average"], key=ranks["average"].get)[:8]
    said = ", ".join(f"{label(name)} {ranks['average'][name]:.2f}" for name in order)
    assert said in prose("benchmark.md").replace("the gradient penalty", "gradient penalty")
    assert f"differ by less than {ranks['critical_difference']:.2f}" in prose("benchmark.md")


def test_the_records_against_each_rival():
    said = prose("benchmark.md")
    better, worse = words(*record(SUMMARY, "sam"))
    assert f"better than SAM on {better} tasks and worse on {worse}" in said
    for rival, name in {
        "muon": "Muon",
        "sgd": "SGD",
        "adamw": "AdamW",
        "looksam": "LookSAM",
    }.items():
        better, worse = words(*record(SUMMARY, rival))
        assert f"than {name} on {better} and {worse}" in said, rival


def test_the_first_goals_are_reached_on_as_many_tasks_as_it_says():
    """They were replaced by those of the second study, and are counted here from the rest."""
    said = prose("benchmark.md")
    at_once, within = (
        set.intersection(
            *(set(g["held"]) for g in SUMMARY[name] if g["rival"] in ("sgd", "adamw", "muon"))
        )
        for name in ("goals", "goals_corrected_by_task")
    )
    once, corrected = words(len(at_once), len(within))
    assert f"Not reached: F3EO is on {once}, or on {corrected} with the tests corrected" in said
    peers = ("sam", "asam", "penalty", "looksam")
    verdict = {(d["task"], d["rival"]): d["verdict"] for d in SUMMARY["differences"]}
    best = {
        task: next(method for method in found["means"] if method in peers)
        for task, found in SUMMARY["scores"].items()
    }
    missed = {task for task, peer in best.items() if verdict[task, peer] == "worse"}
    assert f"Not reached: F3EO is on {NUMBERS[len(best) - len(missed)]}. ASAM leads" in said
    assert missed == {"digits-mlp", "fashion-cnn", "fashion-mlp"}
    assert {best[task] for task in missed} == {"asam"}


def test_loss_and_calibration_are_told_as_the_summary_has_them():
    said = prose("benchmark.md").replace("the gradient penalty", "gradient penalty")
    for name in ("ranks_by_loss", "ranks_by_calibration"):
        ranks = SUMMARY[name]["average"]
        first = ", ".join(f"{label(method)} {ranks[method]:.2f}" for method in list(ranks)[:4])
        assert first in said, name
    assert next(iter(SUMMARY["ranks_by_calibration"]["average"])) == "f3eo"
    assert list(SUMMARY["ranks_by_loss"]["average"])[1] == "f3eo"


def test_no_goal_of_the_second_study_is_reached_by_the_first():
    reached = [goal["reached"] for goal in [*SUMMARY["goals"], *SUMMARY["levels"]]]
    assert len(reached) == 12 and reached.count(False) == 11 and reached.count(None) == 1
    assert "Of the twelve, none is reached; one, on 4-bit weights" in prose("benchmark.md")


def test_the_earlier_study_is_told_as_it_ended():
    said, ranks = prose("benchmark.md"), USUAL["ranks"]["average"]
    assert record(USUAL, "sam")[0] == record(USUAL, "sgd")[0] == 6
    assert record(USUAL, "adamw")[0] == record(USUAL, "looksam")[0] == 5
    assert record(USUAL, "muon")[1] == 5
    ends = ranks["muon"], ranks["soap"], ranks["f3eo"]
    muon, soap, ours = (f"{rank:.2f}" for rank in ends)
    assert f"has the best rank, {muon}, before SOAP, {soap}, and F3EO, {ours}" in said


def test_f3eo_has_nothing_of_its_own_to_search():
    assert WRAPPERS["f3eo"] == {} and "f3eo" not in OWN


JOINED = {"msam": 1, "partial_sam": 1.25, "ema": 1, "schedule_free": 1, "last_layer": 1}


def test_eleven_methods_have_results_and_five_joined(rows):
    shown = {row[0].strip("`"): float(row[2]) for row in table("benchmark.md", "name")}
    assert shown == JOINED and len(set(rows["method"])) == 11
    assert set(TUNED) == set(rows["method"]) | set(JOINED) and set(JOINED) <= set(WRAPPERS)
    for name, gradients in JOINED.items():
        counted = count(name, METHODS[name].options()).gradient_equivalents
        assert counted == pytest.approx(gradients), name
        paper = METHODS[name].source.paper.removeprefix("arXiv ")
        assert name == "ema" or f"https://arxiv.org/abs/{paper}" in text("benchmark.md")


def test_peers_that_no_package_has_are_named():
    own = {n for n, m in METHODS.items() if m.source.name.startswith("f3eo.bench")}
    assert own == {"msam", "last_layer"}
    said = prose("benchmark.md")
    assert (
        f"over these bases and follow their papers, tested on dense vectors: {label('msam')}"
        in said
    )
    assert f"and the {label('last_layer')}" in said


def test_its_example_is_the_old_default_compiled():
    source = " ".join(block("benchmark.md", containing="Compiled").split())
    assert "estimator=Compiled(PerSample()), strength=Fitted(0.04)" in source


def mean(rows, task, variant, *, method="f3eo", seeds=range(10), column="final.test_accuracy"):
    chosen = (pl.col("task") == task) & (pl.col("variant") == variant)
    own = rows.filter(chosen & (pl.col("method") == method) & pl.col("seed").is_in(list(seeds)))
    assert len(own) == len(seeds)
    return own[column].mean()


ABLATION = {
    "nothing": [""],
    "rule": ["rule=per_tensor", "rule=coupled"],
    "strength": ["weight=cap", "weight=fixed", "weight=ratio"],
    "power 2": ["power=2.0"],
    "whole batch": ["fraction=1.0"],
    "`every=1`": ["every=1", "every=10"],
    "estimator": ["estimator=batch", "estimator=sign", "estimator=model_sampled"],
    "base": ["f3eo over sgd", "f3eo over adamw"],
}


@pytest.mark.parametrize("changed", ABLATION)
def test_the_ablation_is_that_of_the_rows(changed, rows):
    (cells,) = [row for row in table("benchmark.md", "changed") if row[0].startswith(changed)]
    shown = [float(number) for number in cells[1].split(", ")]
    found = [
        100 * mean(rows, "mnist1d-mlp", variant, seeds=range(5)) for variant in ABLATION[changed]
    ]
    assert shown == pytest.approx(found, abs=0.051)


TASKS = {
    "MNIST-1D, MLP": "mnist1d-mlp",
    "MNIST-1D, convolutions": "mnist1d-cnn",
    "digits": "digits-mlp",
    "CIFAR-10": "cifar10-10k",
    "modular addition": "modular-addition",
    "Fashion-MNIST": "fashion-cnn",
    "40 % wrong labels": "fashion-cnn-noise40",
    "full batch": "large-batch",
    "Shakespeare": "shakespeare-char",
    "wine": "wine",
    "breast-cancer": "breast-cancer",
}


def test_one_strength_against_a_searched_one_is_that_of_the_rows(rows):
    shown = table("tried.md", "task")
    assert [row[0] for row in shown] == list(TASKS)
    for name, fitted, cap in shown:
        loss = float(fitted) < 2
        column = "final.test_loss" if loss else "final.test_accuracy"
        for number, variant in ((fitted, ""), (cap, "weight=cap, value searched")):
            found = (1 if loss else 100) * mean(rows, TASKS[name], variant, column=column)
            digits = len(number.partition(".")[2])
            assert float(number) == pytest.approx(found, abs=0.51 * 10**-digits), name


def test_the_bases_are_those_it_names(rows):
    ours = rows.filter((pl.col("method") == "f3eo") & (pl.col("variant") == ""))
    bases = {
        task: json.loads(config)["options"]["base"]
        for task, config in zip(ours["task"], ours["config:json"], strict=True)
    }
    assert {task for task, base in bases.items() if base == "sgd"} == {
        *("cifar10-10k", "fashion-cnn-noise40")
    }
    assert list(bases.values()).count("muon") == 10
    assert "Muon on ten tasks, SGD on CIFAR-10 and wrong labels" in prose("benchmark.md")
