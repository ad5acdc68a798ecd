import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from f3eo import cli
from f3eo.bench.execute import resume
from f3eo.bench.execute.pool import Update
from f3eo.bench.methods import METHODS, bases
from f3eo.bench.plan import tuning
from f3eo.bench.plan import variants as listed
from f3eo.bench.plan.choice import choose_bases, choose_options
from f3eo.bench.plan.spaces import BASES, TUNED
from f3eo.bench.plan.stages import bench, tune
from f3eo.bench.plan.study import PARTS, QUICK, USUAL, Study
from f3eo.bench.price import prices
from f3eo.bench.price.ratios import Quartiles
from f3eo.bench.price.step_times import Times
from f3eo.bench.run.row import record
from f3eo.bench.tasks import TASKS


@pytest.fixture
def small(tmp_path, monkeypatch):
    judged_once = replace(TASKS["digits-mlp"], splits=1)
    monkeypatch.setitem(TASKS, "digits-mlp", judged_once)

    def make(**changes):
        usual = {"name": "small", "tasks": ("digits-mlp",), "methods": ("sgd", "f3eo")}
        usual["base"] = "usual"
        numbers = {"trials": 3, "seeds": 2, "scale": 0.01, "parts": ("results",)}
        return Study(**(usual | numbers | changes), folder=tmp_path)

    return make


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def timed(monkeypatch):
    """Replaces the timing: a step of F3EO takes twice as long; what is timed is noted."""
    noted = []

    def measured(task, methods, place=None):
        noted.append((task, list(methods)))
        found = {k: 2.0 if m == "f3eo" else 1.0 for k, (m, _) in methods.items()}
        ratios = {kind: Quartiles(price, price, price) for kind, price in found.items()}
        return Times(Quartiles(0.001, 0, 0), ratios)

    monkeypatch.setattr(prices, "step_times", measured)
    return noted


@pytest.fixture
def trained(monkeypatch, make_row, timed):
    """Replaces the training: the higher the learning rate the better, above 1 it diverges."""
    noted = []

    def execute(runs, workers, deadline, keep=None, kind=None):
        for run in runs:
            noted.append(run)
            lr = run.options["lr"]
            row = make_row(min(lr, 1.0), method=run.method, task=run.task) | {
                "key": run.key,
                "variant": run.variant,
                "seed": run.seed,
                "config": run.config,
                "kind": "result" if run.split == "test" else "trial",
            }
            lost = {"status": "diverged", "error": "no number", "final": None}
            yield Update(0, run, 1.0, row | (lost if lr > 1 else {}))

    monkeypatch.setattr(resume, "execute", execute)
    return noted


def lines(asked, name):
    return [json.loads(line) for line in (asked.path / f"{name}.jsonl").read_text().splitlines()]


def test_tuning_comes_first_and_results_take_what_was_best(small, trained, console):
    asked = small()
    outcome = bench(asked, console)
    trials, results = trained[:6], trained[6:]
    assert {(r.split, r.seed) for r in trials} == {("validation", 1000)}
    assert [(r.method, r.seed) for r in results] == [
        ("sgd", 0), ("f3eo", 0), ("sgd", 1), ("f3eo", 1),
    ]  # fmt: skip
    assert {r.split for r in results} == {"test"}
    for method in asked.methods:
        drawn = tuning.draw("digits-mlp", method, 3)
        tried = [r.options for r in trials if r.method == method]
        assert tried == [METHODS[method].options(point) for point in drawn]
        best = max((o for o in tried if o["lr"] <= 1), key=lambda o: o["lr"])
        assert all(r.options == best for r in results if r.method == method)
    assert outcome.missing == 0 and len(outcome.results) == 4
    assert {(row["kind"], row["variant"]) for row in lines(asked, "results")} == {("result", "")}
    assert {row["kind"] for row in lines(asked, "trials")} == {"trial"}


def test_trials_of_small_sets_are_judged_on_several_splits(small, trained, console):
    bench(small(tasks=("wine",), trials=2), console)
    trials = [run for run in trained if run.split == "validation"]
    seeds = {}
    for run in trials:
        seeds.setdefault((run.method, run.options["lr"]), []).append(run.seed)
    assert len(trials) == 2 * 2 * TASKS["wine"].splits > 4
    assert all(found == [1000, 1001, 1002, 1003, 1004] for found in seeds.values())


def test_all_have_the_same_seconds_in_tuning_and_results(small, trained, console):
    bench(small(), console)
    assert {run.budget for run in trained} == {round(TASKS["digits-mlp"].budget * 0.01)}
    assert {(run.method, run.price) for run in trained} == {("sgd", 1.0), ("f3eo", 2.0)}


def test_a_second_start_repeats_nothing_nor_does_bench_repeat_tune(small, trained, timed, console):
    tune(small(), console)
    assert len(trained) == 6
    bench(small(), console)
    assert len(trained) == 10
    bench(small(), console)
    assert len(trained) == 10 and len(timed) == 1
    more = small(seeds=3, trials=4)
    bench(more, console)
    new = trained[10:]
    assert [r.split for r in new[:2]] == ["validation"] * 2  # the fourth trials
    assert {row["seed"] for row in lines(more, "results")} == {0, 1, 2}


def test_the_tables_alone_are_enough_to_go_on_from(small, trained, timed, console):
    asked = small()
    bench(asked, console)
    for name in ("trials", "results"):
        (asked.path / f"{name}.jsonl").unlink()
    outcome = bench(asked, console)
    assert len(trained) == 10 and len(outcome.results) == 4 and len(outcome.trials) == 6


def reprice(asked, price):
    """As if F3EO had been timed anew."""
    file = asked.path / "prices.json"
    kept = json.loads(file.read_text())
    (f3eo,) = [kind for kind in kept["prices"] if " f3eo" in kind]
    kept["prices"][f3eo]["price"] = price
    file.write_text(json.dumps(kept))


def test_another_price_redoes_only_its_own_rows(small, trained, console):
    asked = small()
    bench(asked, console)
    reprice(asked, 2.5)
    bench(asked, console)
    assert {run.method for run in trained[10:]} == {"f3eo"} and len(trained) == 15
    prices = {(r["method"], r["config"]["price"]) for r in lines(asked, "results")}
    assert prices == {("sgd", 1.0), ("f3eo", 2.5)} and len(lines(asked, "results")) == 4


def test_a_part_that_does_not_ask_for_them_brings_no_old_rows_back(small, trained, console):
    asked = small(tasks=("mnist1d-mlp",), parts=("results",))
    bench(asked, console)
    reprice(asked, 2.5)
    bench(asked, console)
    before = lines(asked, "results")
    bench(replace(asked, parts=("sensitivity",)), console)
    after = lines(asked, "results")
    assert [row for row in after if not row["variant"]] == before and len(after) > len(before)


def test_another_choice_redoes_only_its_own_results(small, trained, console, monkeypatch):
    asked = small()
    bench(asked, console)
    monkeypatch.setitem(METHODS["sgd"].__dict__, "defaults", METHODS["sgd"].defaults | {"lr": 1.0})
    bench(asked, console)
    assert {run.method for run in trained[10:]} == {"sgd"}
    assert {run.options["lr"] for run in trained[10:] if run.split == "test"} == {1.0}


def test_methods_none_of_whose_trials_finished_run_with_their_defaults(small):
    chosen = choose_options(small(), [])
    assert chosen["digits-mlp", "sgd"] == METHODS["sgd"].options()


def test_a_fact_of_the_task_is_no_matter_of_taste(small):
    (run,) = small(tasks=("mnist1d-mlp",), methods=("ivon",), trials=1).trial_runs()
    assert run.options["ess"] == 4000


def test_variants_start_from_what_was_tuned(small, trained, console):
    methods = ("sgd", "adamw", "muon", "sam", "f3eo")
    asked = small(tasks=("mnist1d-mlp",), methods=methods, parts=PARTS, seeds=4)
    outcome = bench(asked, console)
    chosen = choose_options(asked, outcome.trials)
    tuned = {method: chosen["mnist1d-mlp", method] for method in methods}
    found = {}
    for run in trained:
        if run.split == "test":
            found.setdefault(run.variant, []).append(run)
    known = {v.label for v in (*listed.ABLATION, *listed.SENSITIVITY)}
    alike = {v.label for v in listed.ABLATION if _unchanged(v, tuned)}
    assert set(found) == {"", *known - alike}
    (every,) = {json.dumps(r.options) for r in found["every=10"]}
    assert json.loads(every) == tuned["f3eo"] | {"every": 10}
    assert {r.options["base"] for r in found["sensitivity direct"]} == {"sgd"}
    muon = found["f3eo over muon"][0].options
    rates = {name: tuned["muon"][name] for name in ("lr", "weight_decay")}
    assert muon == tuned["f3eo"] | rates | {"base": "muon", "momentum": 0.95}
    assert found["sam over adamw"][0].method == "sam"
    assert {r.seed for r in found["every=10"]} == {0, 1, 2, 3}
    grid = found["sensitivity direct"]
    assert {r.seed for r in grid} == {0, 1, 2} and len(grid) == 3 * 20
    assert {r.options["lr"] for r in grid} == set(listed.RATES)
    seeds = [run.seed for run in trained if run.split == "test"]
    assert seeds == sorted(seeds)


def test_a_wrapper_stands_over_the_base_that_is_asked_for_with_its_momentum(small):
    for base, momentum in {"sgd": 0.9, "adamw": 0.9, "muon": 0.95}.items():
        asked = small(methods=("sgd", "sam", "f3eo"), base=base, trials=1)
        alone, *wrappers = asked.trial_runs()
        own = METHODS[base].options()
        for run in wrappers:
            assert (run.options["base"], run.options["momentum"]) == (base, momentum)
            assert run.options["lr"] == own["lr"]
        assert alone.options == METHODS["sgd"].options()
    tasks, base = ("digits-mlp", "wine"), {"digits-mlp": "muon"}
    mixed = small(tasks=tasks, methods=("sam",), trials=1, base=base).trial_runs()
    assert [r.options["base"] for r in mixed if r.seed == 1000] == ["muon", "sgd"]


def test_momentum_over_a_base_is_that_of_the_base_by_itself():
    assert set(bases.BASES) == set(BASES)
    for base in ("sgd", "muon"):
        assert bases.over(base)["momentum"] == METHODS[base].defaults["momentum"]
    stepper = METHODS["adamw"].build(TASKS["wine"].model(), METHODS["adamw"].options(), 0)
    assert stepper.optimizers[0].defaults["betas"][0] == bases.over("adamw")["momentum"]


def test_the_best_base_is_the_one_whose_own_trials_are_best(small, trained, console, monkeypatch):
    """Here training is the better the higher the rate."""
    asked = small(methods=("f3eo", "sam"), base="best", tasks=("digits-mlp", "mnist1d-mlp"))
    ahead, draw = {("digits-mlp", "adamw"), ("mnist1d-mlp", "muon")}, tuning.draw

    def drawn(task, method, trials, base=""):
        lr = 0.9 if (task, method) in ahead else 0.5
        return [{**point, "lr": lr} for point in draw(task, method, trials, base)]

    monkeypatch.setattr(tuning, "draw", drawn)
    outcome = bench(asked, console)
    assert outcome.missing == 0
    wrapped = {(r.task, r.options["base"]) for r in trained if r.method in ("f3eo", "sam")}
    assert wrapped == {("digits-mlp", "adamw"), ("mnist1d-mlp", "muon")}
    assert {r.method for r in trained if r.split == "test"} == {"f3eo", "sam"}
    kept = json.loads((asked.path / "study.json").read_text())
    assert kept["tasks"]["mnist1d-mlp"]["base"] == "muon"
    assert set(kept["spaces"]) >= {"f3eo over adamw", "sam over muon"}
    before = len(trained)
    bench(asked, console)
    assert len(trained) == before


def test_bases_are_not_tried_where_nothing_stands_over_one(small, trained, console):
    bench(small(methods=("adamw", "ivon"), base="best"), console)
    assert {run.method for run in trained} == {"adamw", "ivon"}


def test_without_any_trial_of_a_base_that_finished_the_usual_one_is_wrapped(small):
    asked = small(tasks=("digits-mlp", "modular-addition"), base="best")
    settled = choose_bases(asked, [])
    assert [settled.base_on(task) for task in asked.tasks] == ["sgd", "adamw"]


def _unchanged(variant, tuned):
    rates = {n: tuned[variant.rates or variant.method][n] for n in ("lr", "weight_decay")}
    own = tuned[variant.method]
    return own == own | rates | variant.options


def test_a_variant_that_is_what_was_tuned_is_left_out(small):
    asked = small(tasks=("mnist1d-mlp",), methods=("sgd", "f3eo"), parts=("ablation",))
    rates = {"lr": 0.5, "weight_decay": 0.01}

    def labels(**own):
        chosen = choose_options(asked, [])
        given = {name: chosen["mnist1d-mlp", name] | rates for name in asked.methods}
        given["f3eo"] |= own
        return {run.variant for run in asked.result_runs({(t, m): given[m] for t, m in chosen})}

    assert labels(weight_decay=0.02) - labels() == {"f3eo over sgd"}


def test_variants_of_methods_that_are_not_tuned_here_are_left_out(small):
    asked = small(tasks=("mnist1d-mlp",), parts=("ablation",))
    runs = asked.result_runs(choose_options(asked, []))
    labels = {run.variant for run in runs}
    over = {label for label in labels if "over" in label}
    assert "every=10" in labels and over <= {"f3eo over sgd"}


@pytest.mark.filterwarnings("ignore:F3EO knows no metric of Muon")
@pytest.mark.parametrize("variant", [*listed.ABLATION, *listed.SENSITIVITY])
def test_every_variant_can_be_built_and_differs_from_the_method(variant):
    method = METHODS[variant.method]
    options = method.options(variant.options)
    elsewhere = method.options({"base": "muon"})  # what is over SGD is the default
    alike = variant in listed.SENSITIVITY or variant.options.get("base") == "sgd"
    assert options != (elsewhere if alike else method.options())
    method.build(TASKS["digits-mlp"].model(), options, 0)


def test_labels_of_the_ablation_are_unique():
    labels = [v.label for v in listed.ABLATION]
    assert len(set(labels)) == len(labels)
    assert all(v.label.startswith("sensitivity ") for v in listed.SENSITIVITY)


def test_prices_of_variants_are_measured_beside_the_methods(small, trained, timed, console):
    tune(small(tasks=("mnist1d-mlp",), parts=("results", "ablation")), console)
    ((task, kinds),) = timed
    assert task == "mnist1d-mlp" and any("every=10" in kind for kind in kinds)
    assert len(kinds) == len(set(kinds))


def test_every_trial_of_every_method_has_a_price(small, trained, console):
    asked = small(methods=TUNED, trials=2)
    assert tune(asked, console).missing == 0
    assert {run.method for run in trained} == set(TUNED)


def test_what_was_asked_is_written_down_beside_what_was_asked_before(small, trained, console):
    tune(small(), console)
    asked = small(tasks=("wine",), methods=("sgd",), parts=("ablation",))
    tune(asked, console)
    kept = json.loads((asked.path / "study.json").read_text())
    assert list(kept["tasks"]) == ["digits-mlp", "wine"] and kept["methods"] == ["sgd", "f3eo"]
    assert kept["parts"] == ["results", "ablation"]
    assert kept["device"] == "cpu"
    assert kept["tasks"]["wine"]["score"] == TASKS["wine"].score
    assert kept["spaces"]["sgd"]["lr"] == [0.05, 2.0]
    assert len(lines(asked, "trials")) == 6 + 3 * TASKS["wine"].splits  # those of digits stay


def test_all_runs_of_a_study_are_on_its_device(small, gpu):
    asked = small(device="auto")
    runs = asked.trial_runs() + asked.result_runs(asked.defaults)
    assert {run.device for run in runs} == {"cuda"}
    assert {run.device for run in small().trial_runs()} == {"cpu"}


def test_presets_name_what_there_is():
    for preset in (USUAL, QUICK):
        Study(**preset)
    assert set(USUAL["methods"]) == set(TUNED) and len(TUNED) == 16
    assert USUAL["trials"] == 8 and USUAL["seeds"] == 10


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tasks": ("nope",)}, "unknown task 'nope'; choose from digits-mlp"),
        ({"methods": ("lbfgs",)}, "unknown method 'lbfgs'; choose from sgd, adamw"),
        ({"parts": ("all",)}, "unknown part 'all'; choose from results, ablation, sensitivity"),
        ({"base": {"wine": "best"}}, "unknown base 'best'; choose from sgd, adamw, muon"),
        ({"base": {"nope": "sgd"}}, "unknown task 'nope'; choose from digits-mlp"),
        ({"base": "adam"}, "unknown base 'adam'; choose from usual, best, sgd, adamw, muon"),
        ({"device": "gpu"}, "no device 'gpu' here; choose from auto, cpu"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"scale": 0.0}, "scale must be a positive number, got 0.0"),
        ({"minutes": -1.0}, "minutes must be a positive number, got -1.0"),
        ({"name": "a/b"}, "the name of a study must be the name of a single folder, got 'a/b'"),
    ],
)
def test_bad_input_is_named_with_what_is_allowed(small, changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


# The whole of it.


def in_this_process(runs, workers, deadline, keep=None, kind=None):
    for run in runs:
        yield Update(0, run, 1.0, record(run))


def measured(asked):
    """What was measured, by key; every key is there once."""
    found = [row for name in ("trials", "results") for row in lines(asked, name)]
    assert len({row["key"] for row in found}) == len(found)
    ends = {row["key"]: row["final"] or {} for row in found}
    return {key: {k: v for k, v in end.items() if k != "seconds"} for key, end in ends.items()}


def test_killed_and_started_again_nothing_is_lost_or_doubled(tmp_path, timed, console):
    shape = {"name": "study", "tasks": ("wine",), "methods": ("sgd", "sam"), "trials": 3}
    shape |= {"seeds": 6, "scale": 0.05, "base": "sgd", "parts": ("results",)}
    whole, cut = (Study(**shape, folder=tmp_path / name) for name in ("whole", "cut"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resume, "execute", in_this_process)
        bench(whole, console)
    cut.path.mkdir(parents=True)
    prices = (whole.path / "prices.json").read_bytes()
    (cut.path / "prices.json").write_bytes(prices)  # else there are other numbers of steps
    command = [*(sys.executable, "-m", "f3eo.cli", "bench"), *("--folder", str(tmp_path / "cut"))]
    command += [*("--tasks", "wine", "--methods", "sgd", "sam", "--trials", "3", "--seeds", "6")]
    command += [*("--scale", "0.05", "--base", "sgd", "--only", "results", "--workers", "1")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    results, end = cut.path / "results.jsonl", time.monotonic() + 120
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    before = results.read_bytes().count(b"\n")
    assert before < 12
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f"{before} of 12 runs are done" in done.stdout, done.stderr
    assert measured(cut) == measured(whole)
    assert len(measured(cut)) == 6 * TASKS["wine"].splits + 12


def test_after_its_minutes_it_ends_in_order_and_says_how_to_go_on(
    tmp_path, timed, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["--tasks", "wine", "--methods", "sgd", "--minutes", "0.00001"]
    monkeypatch.setattr(sys, "argv", ["f3eo", "bench", "--folder", str(tmp_path), *words])
    assert cli.main() == 130
    output = capsys.readouterr().out
    assert f"Interrupted with {8 * TASKS['wine'].splits} runs to go" in output
    assert f"f3eo bench --folder {tmp_path} --tasks wine" in output


def test_tuning_ends_with_a_table_of_what_was_found(tmp_path, trained, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["--quick", "--tasks", "wine", "--trials", "3", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["f3eo", "tune", *words])
    assert cli.main() == 0
    output = capsys.readouterr().out
    assert "wine, tuned" in output and "validation loss" in output
    found = max(p["lr"] for p in tuning.draw("wine", "sgd", 3) if p["lr"] <= 1)
    assert f"lr {found:.3g}, weight_decay" in output
    assert {run.method for run in trained} == set(QUICK["methods"])
    assert (tmp_path / "quick" / "trials.parquet").exists()
