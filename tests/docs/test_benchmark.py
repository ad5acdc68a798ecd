"""What docs/benchmark.md and docs/tried.md say of the committed rows."""

import json

import polars as pl
import pytest

from docs.pages import ROOT, block, prose, table, text
from f3eo.bench.methods import METHODS, label
from f3eo.bench.methods.count import count
from f3eo.bench.plan.spaces import OWN, TUNED, WRAPPERS
from f3eo.bench.plan.variants import ABLATION_TASKS

OURS_AND_SAM, PLAIN = ("F3EO", "SAM"), ("sgd", "adamw")
STUDY, OLD = ROOT / "results/study", ROOT / "results/euclidean"
SUMMARY = json.loads((STUDY / "summary.json").read_text(encoding="utf-8"))
EUCLIDEAN = json.loads((OLD / "summary.json").read_text(encoding="utf-8"))
USUAL = json.loads((ROOT / "results/usual-base/summary.json").read_text(encoding="utf-8"))
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PLACES = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"]


@pytest.fixture(scope="module")
def rows():
    return pl.read_parquet(STUDY / "results.parquet")


@pytest.fixture(scope="module")
def old():
    return pl.read_parquet(OLD / "results.parquet")


def options_of(rows):
    """What each row's method was built with."""
    return [json.loads(config)["options"] for config in rows["config:json"]]


def record(summary, rival):
    (found,) = [r for r in summary["records"] if r["rival"] == rival]
    return len(found["better"]), len(found["worse"])


def page():
    return prose("benchmark.md").replace("the gradient penalty", "gradient penalty")


def ranked(ranks, *, first):
    """The first methods and their average ranks, as the page writes them."""
    average = ranks["average"]
    return ", ".join(f"{label(name)} {average[name]:.2f}" for name in list(average)[:first])


@pytest.mark.parametrize("name", ["ranks", "ranks_by_loss", "ranks_by_calibration"])
def test_the_ranks_are_those_of_the_summary(name):
    assert ranked(SUMMARY[name], first=4) in page()
    average = SUMMARY[name]["average"]
    place = list(average).index("f3eo")
    assert place < 4 or f"F3EO is {PLACES[place]}, {average['f3eo']:.2f}" in page()


def test_the_difference_of_ranks_that_says_something():
    critical = SUMMARY["ranks"]["critical_difference"]
    assert f"differ by less than {critical:.2f}" in prose("benchmark.md")


@pytest.mark.parametrize("rival", ["sam", "muon", "sgd", "adamw"])
def test_the_records_against_each_rival(rival):
    better, worse = (NUMBERS[count] for count in record(SUMMARY, rival))
    assert f"than {label(rival)} on {better} and {worse}" in page()


def test_the_goals_that_are_reached_are_named():
    levels = {level["claim"]: level["reached"] for level in SUMMARY["levels"]}
    reached = [claim for claim, true in levels.items() if true]
    claims = [goal["rival"] for goal in SUMMARY["goals"] if goal["reached"]]
    assert len(levels) + len(SUMMARY["goals"]) == 12 and None not in levels.values()
    assert (reached, claims) == (["accuracy lost to 4-bit weights, over that of its bases"], [])
    assert "one of the twelve goals is reached" in page()


def test_f3eo_has_the_least_response_to_weight_noise_and_the_best_scaled_loss(rows):
    for column, said in (
        ("final.weight_noise_response", "adds {:.3f} nats"),
        ("final.scaled_loss", "a test loss of {:.3f} nats"),
    ):
        means = by_method(rows, column)
        assert min(means, key=means.get) == "f3eo"
        assert said.format(means["f3eo"]) in page()


def test_scores_that_the_prose_names(rows):
    accuracy = "final.test_accuracy"
    for method, shown in {"f3eo": 70.9, "penalty": 74.2, "asam": 74.2}.items():
        found = 100 * mean(rows, "reviews-minilm", "", method=method, column=accuracy)
        assert shown == pytest.approx(found, abs=0.051)
    assert "F3EO has 70.9 %, level with SGD, AdamW, Muon and SAM" in page()
    verdict = {(d["task"], d["rival"]): d["verdict"] for d in SUMMARY["differences"]}
    for rival in ("sgd", "adamw", "muon", "sam"):
        assert verdict["reviews-minilm", rival] == "level"
    for method, shown in {"muon": 1.933, "f3eo": 1.995}.items():
        found = mean(rows, "shakespeare-char", "", method=method, column="final.test_loss")
        assert shown == pytest.approx(found, abs=0.00051) and f"{shown}" in page()
    best = {
        d["rival"]
        for d in SUMMARY["differences"]
        if d["task"] == "cifar10-10k" and d["verdict"] == "worse"
    }
    assert best == {"soap", "muon", "ivon", "sgd"} and "behind SOAP, Muon, IVON and SGD" in page()
    for task, place in {"digits-few": 9, "fashion-mlp-noise40": 6}.items():
        assert list(SUMMARY["scores"][task]["means"]).index("f3eo") == place
    assert "F3EO over Muon is tenth and seventh" in page()
    classics = [g for g in SUMMARY["goals"] if g["rival"] in ("sgd", "adamw", "muon")]
    at_once = set.intersection(*(set(goal["held"]) for goal in classics))
    assert (
        at_once == {"digits-mlp", "mnist1d-mlp", "fashion-mlp", "wine"}
        and "at once on four" in page()
    )


def test_what_the_ablation_says_is_that_of_its_table():
    shown = {row[0]: row[1:] for row in table("benchmark.md", "changed")}
    marked = {
        (line, task)
        for line, cells in shown.items()
        for task, cell in zip(ABLATION_TASKS, cells, strict=True)
        if "▼" in cell
    }
    over = {(f"{method} over {base}", "mnist1d-mlp") for method in OURS_AND_SAM for base in PLAIN}
    unlearned = {(f"{method} over sgd", "modular-addition") for method in OURS_AND_SAM}
    assert marked == {
        *over,
        *unlearned,
        *(("F3EO, rule=direct", task) for task in ABLATION_TASKS),
        ("F3EO, strength=fixed", "modular-addition"),
        ("SAM over adamw", "modular-addition"),
    }
    assert not any("▲" in cell for cells in shown.values() for cell in cells)
    on_curves = {line: cells[0].strip("▼* ") for line, cells in shown.items()}
    lost = {
        (method, base): round(float(on_curves[method]) - float(on_curves[f"{method} over {base}"]))
        for method in OURS_AND_SAM
        for base in PLAIN
    }
    assert list(lost.values()) == [7, 8, 9, 9]
    assert "loses seven and eight points, SAM nine on both" in page()
    assert shown["F3EO"][2] == "100.00" and "where the default reaches 100 %" in page()
    for estimator in ("batch", "compiled", "exact", "model_sampled", "sign"):
        assert f"F3EO, estimator={estimator}" in shown
    for metric in ("elementwise", "euclidean", "factored"):
        assert f"F3EO, metric={metric}" in shown


def test_the_grids_are_told_as_they_ended(rows):
    accuracy = "final.test_accuracy"
    means = {}
    for rule in ("decoupled", "coupled", "direct"):
        own = rows.filter(pl.col("variant") == f"sensitivity {rule}")
        settings = own.with_columns(
            pl.Series("lr", [o["lr"] for o in options_of(own)]),
            pl.Series("value", [o["value"] for o in options_of(own)]),
        )
        assert len(settings) == 5 * 4 * 3
        grouped = settings.group_by("lr", "value").agg(100 * pl.col(accuracy).mean())
        means[rule] = {(lr, value): score for lr, value, score in grouped.iter_rows()}
    for rule, said in {"decoupled": "reaches {} to {} %", "coupled": "one {} to {} %"}.items():
        known = {key: score for key, score in means[rule].items() if score is not None}
        best = max(known, key=known.get)[0]
        ends = [score for (lr, _), score in known.items() if lr == best]
        assert len(ends) == 4 and said.format(f"{min(ends):.1f}", f"{max(ends):.1f}") in page()
    learnt = [score for score in means["direct"].values() if score is not None and score > 20]
    assert not learnt and "at none of its twenty settings" in page()


def by_method(rows, column):
    """Means over tasks of means over seeds."""
    known = (
        rows.filter(pl.col("variant") == "").group_by("method", "task").agg(pl.col(column).mean())
    )
    return dict(known.group_by("method").agg(pl.col(column).mean()).iter_rows())


def test_other_shares_of_wrong_labels_are_told_as_they_ended():
    folder = ROOT / "results/noise"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    means = {task: known["means"] for task, known in summary["scores"].items()}
    verdicts = {(d["task"], d["rival"]): d["verdict"] for d in summary["differences"]}

    def judged(task):
        found = {"better": set(), "level": set(), "worse": set()}
        for (on, rival), verdict in verdicts.items():
            if on == task:
                found[verdict].add(rival)
        return found

    for task, said in {
        "fashion-mlp-noise20": "has {:.1f} % in a perceptron, level with Muon and ahead of SGD",
        "fashion-cnn-noise20": "convolutions {:.1f} %, level with SGD and ahead of the others",
        "fashion-cnn-noise60": "fails there: {:.1f} %, SGD 73.8",
    }.items():
        assert said.format(means[task]["f3eo"]) in page()
    assert judged("fashion-mlp-noise20")["level"] == {"muon"}
    assert judged("fashion-cnn-noise20")["level"] == {"sgd"}
    assert not judged("fashion-mlp-noise20")["worse"] | judged("fashion-cnn-noise20")["worse"]
    assert judged("fashion-mlp-noise60")["worse"] == {"sam"}
    leading, ours = means["fashion-mlp-noise60"]["sam"], means["fashion-mlp-noise60"]["f3eo"]
    assert f"SAM leads the perceptron, {leading:.1f} and {ours:.1f} %" in page()
    assert judged("fashion-cnn-noise60")["worse"] == {"sgd", "sam"}
    assert f"{means['fashion-cnn-noise60']['sgd']:.1f}" == "73.8"
    runs = pl.read_parquet(folder / "results.parquet").filter(
        pl.col("task") == "fashion-cnn-noise60"
    )
    rates = {(m, o["lr"]) for m, o in zip(runs["method"], options_of(runs), strict=True)}
    assert {("f3eo", 0.978), ("sgd", 0.3)} <= rates and "rate of 0.98" in page()
    failed = runs.filter((pl.col("method") == "f3eo") & (pl.col("final.test_accuracy") < 0.2))
    assert len(failed) == 4 and "four of ten runs stay below 20 %" in page()


def processors(rows):
    found = pl.col("machine:json").str.json_path_match("$.processor")
    return rows.with_columns(found.alias("processor"))


def test_every_seed_has_all_methods_and_both_machines_are_named(rows):
    plain = rows.filter(pl.col("variant") == "")
    assert len(plain) == 11 * 15 * 10 and plain["seed"].n_unique() == 10
    machines = processors(plain)
    kinds = set(machines["processor"])
    assert kinds == {"AMD EPYC", "Intel(R) Xeon(R) Processor"}
    late = pl.col("task") == "reviews-minilm"
    assert set(machines.filter(~late & (pl.col("seed") <= 5))["processor"]) == {"AMD EPYC"}
    assert set(machines.filter(late | (pl.col("seed") >= 7))["processor"]) == kinds - {"AMD EPYC"}
    changed = processors(rows.filter(pl.col("variant") != ""))
    assert set(changed["processor"]) == kinds - {"AMD EPYC"}
    assert "the ablation and the grids are from the Xeon" in page()


def test_the_study_of_version_2_is_told_as_it_ended():
    score, loss, calibration = (
        EUCLIDEAN[name]["average"] for name in ("ranks", "ranks_by_loss", "ranks_by_calibration")
    )
    assert f"score: SAM {score['sam']:.2f}, F3EO {score['f3eo']:.2f}" in page()
    assert f"gradient penalty {loss['penalty']:.2f}, F3EO {loss['f3eo']:.2f}" in page()
    assert next(iter(calibration)) == "f3eo" and f"first, {calibration['f3eo']:.2f}" in page()


def test_the_study_over_usual_bases_is_told_as_it_ended():
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


def test_its_example_is_the_old_default():
    source = block("benchmark.md", containing="Fitted")
    assert "estimator=PerSample(), strength=Fitted(0.04)" in source


def mean(rows, task, variant, *, method="f3eo", seeds=range(10), column="final.test_accuracy"):
    chosen = (pl.col("task") == task) & (pl.col("variant") == variant)
    own = rows.filter(chosen & (pl.col("method") == method) & pl.col("seed").is_in(list(seeds)))
    assert len(own) == len(seeds)
    return own[column].mean()


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


def test_one_strength_against_a_searched_one_is_that_of_the_rows(old):
    shown = table("tried.md", "task")
    assert [row[0] for row in shown] == list(TASKS)
    for name, fitted, cap in shown:
        loss = float(fitted) < 2
        column = "final.test_loss" if loss else "final.test_accuracy"
        for number, variant in ((fitted, ""), (cap, "weight=cap, value searched")):
            found = (1 if loss else 100) * mean(old, TASKS[name], variant, column=column)
            digits = len(number.partition(".")[2])
            assert float(number) == pytest.approx(found, abs=0.51 * 10**-digits), name


def test_the_bases_are_those_it_names(rows):
    ours = rows.filter((pl.col("method") == "f3eo") & (pl.col("variant") == ""))
    bases = {t: o["base"] for t, o in zip(ours["task"], options_of(ours), strict=True)}
    assert set(bases.values()) == {"muon", "sgd"} and len(bases) == 15
    over_sgd = {task for task, base in bases.items() if base == "sgd"}
    convolutions = {"mnist1d-cnn", "fashion-cnn", "fashion-cnn-noise40", "cifar10-10k"}
    assert over_sgd == {*convolutions, "wine", "reviews-minilm"}
    said = (
        "SGD on the four tasks with convolutions, on wine and on the texts, Muon on the other nine"
    )
    assert said in page()


def test_f3eo_is_the_default_but_for_its_rest(rows):
    """Beside what the trials chose, its options are those of `f3eo bench` today."""
    ours = rows.filter((pl.col("method") == "f3eo") & (pl.col("variant") == ""))
    for options in options_of(ours):
        today = METHODS["f3eo"].options(
            {n: options[n] for n in ("lr", "weight_decay", "base", "momentum")}
        )
        assert options == today
    assert "F3EO never rests here** (`Sensitivity(rest=0)`)" in page()
