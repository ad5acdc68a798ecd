import io
import json

import pytest
from rich.console import Console

from f3eo.bench.execute import resume
from f3eo.bench.execute.pool import Update
from f3eo.bench.execute.resume import is_compatible, is_requested
from f3eo.bench.plan import compare as module
from f3eo.bench.plan.compare import SHORT, Comparison, compare
from f3eo.bench.price.prices import step_kind
from f3eo.bench.tasks import TASKS
from f3eo.bench.tasks import USUAL as USUAL_TASKS


@pytest.fixture
def trained(monkeypatch, make_row):
    """Replaces the training: every run gives a made-up row, and is noted here."""
    noted = []

    def execute(runs, workers, deadline, keep=None, kind=None):
        for run in runs:
            noted.append(run)
            row = make_row(0.1 * run.seed + 0.3) | {
                name: getattr(run, name)
                for name in ("key", "task", "method", "variant", "seed", "config")
            }
            yield Update(0, run, 1.0, row)

    monkeypatch.setattr(resume, "execute", execute)
    monkeypatch.setattr(module, "write_report", lambda rows, path, title: path.write_text(title))
    return noted


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def small(tmp_path):
    def make(**changes):
        usual = {"tasks": ("digits-mlp",), "methods": ("sgd", "sam"), "seeds": 2, "budget": 24}
        return Comparison(folder=tmp_path, **(usual | changes))

    return make


def said(console):
    return console.file.getvalue()


def lines(comparison):
    text = (comparison.path / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_method_gets_every_task_and_seed_at_the_same_setting():
    runs = Comparison().runs()
    keys = {(run.task, run.method, run.seed) for run in runs}
    assert len(keys) == len(runs) == 2 * 5 * 3
    for task in map(TASKS.__getitem__, USUAL_TASKS):
        (setting,) = {json.dumps(r.setting) for r in runs if r.task == task.name}
        assert json.loads(setting)["budget"] == min(task.budget, SHORT)


def test_a_second_start_runs_nothing_twice(small, trained, console):
    first = compare(small(), console)
    assert (first.trained, first.missing, len(lines(small()))) == (4, 0, 4)
    before = small().report.stat().st_mtime_ns
    second = compare(small(), console)
    assert (second.trained, len(trained), len(lines(small()))) == (0, 4, 4)
    assert "4 of 4 runs are done already" in said(console)
    assert small().report.stat().st_mtime_ns > before
    more = compare(small(seeds=3), console)
    assert more.trained == 2 and {run.seed for run in trained[4:]} == {2}


def test_really_trained_rows_resume_after_a_truncated_line(small, console, capsys):
    first = compare(small(methods=("sgd",), workers=1), console)
    path = small().path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    again = compare(small(methods=("sgd",), workers=1), console)
    damaged = path.with_name("damaged.jsonl")
    assert f"Moved 1 damaged line(s) to {damaged}" in capsys.readouterr().err
    assert len(damaged.read_bytes()) > 1000
    assert again.trained == 1
    curve = {row["seed"]: row["curve"]["test_loss"] for row in first.rows}
    assert {row["seed"]: row["curve"]["test_loss"] for row in lines(small())} == curve


def test_another_configuration_keeps_what_matches_and_says_so(small, trained, console):
    compare(small(), console)
    changed = compare(small(overrides={"sgd": {"lr": 0.05}}), console)
    assert changed.trained == 2 and {run.method for run in trained[4:]} == {"sgd"}
    assert "2 row(s) of another configuration" in said(console)
    assert all(
        row["config"]["options"]["lr"] == 0.05
        for row in lines(small())
        if "rho" not in row["config"]["options"]
    )
    back = compare(small(), console)
    assert back.trained == 0 and len(lines(small())) == 4


def test_rows_of_another_budget_do_not_stand_beside_these(small, trained, console):
    compare(small(), console)
    compare(small(methods=("sgd",), budget=48), console)
    assert {(row["method"], row["config"]["budget"]) for row in lines(small())} == {("sgd", 48)}


def test_rows_of_other_tasks_and_methods_stay(small, trained, console):
    compare(small(tasks=("digits-mlp", "mnist1d-mlp")), console)
    fewer = compare(small(methods=("sgd",)), console)
    assert fewer.trained == 0 and len(lines(small())) == 8


def test_agreement_is_asked_only_where_it_matters(make_run, make_row):
    row, runs = make_row(), [make_run()]
    assert (
        is_compatible(row, runs)
        and is_compatible(row, [])
        and is_compatible(row, [make_run(task="mnist1d-mlp")])
    )
    assert is_compatible(row, [make_run("sam")]) and not is_requested(row, [make_run("sam")])
    assert (
        is_requested(row, runs)
        and not is_requested(row, [])
        and is_compatible(row, [make_run(seed=9)])
    )
    assert not is_compatible(row, [make_run(options={"lr": 9.0})])
    assert not is_compatible(row, [make_run("sam", budget=9)])


def test_equal_cost_and_equal_time_are_runs_of_their_own(small, trained, console, monkeypatch):
    asked = []

    def prices(runs, path, tell):
        asked.append([(run.task, run.method, run.price) for run in runs])
        return {step_kind(run): {"sgd": 1.25, "sam": 3.0}[run.method] for run in runs}

    monkeypatch.setattr(module, "prices", prices)
    compare(small(equal=("cost", "time")), console)
    assert asked == [[("digits-mlp", "sgd", None), ("digits-mlp", "sam", None)]]
    kept = {(r["method"], r["seed"], r["config"].get("price")) for r in lines(small())}
    assert len(kept) == 8
    assert {(m, p) for m, _, p in kept} == {("sgd", None), ("sam", None), ("sgd", 1.25), ("sam", 3)}
    assert len({row["key"] for row in lines(small())}) == 8
    text = said(console)
    assert "digits-mlp, ranks" in text and "equal time" in text
    compare(small(equal=("cost", "time")), console)
    compare(small(), console)  # leaves the runs of equal time where they are
    assert len(trained) == len(lines(small())) == 8


def test_rows_of_another_price_do_not_stand_beside_these(make_run, make_row):
    row = make_row(price=2.0)
    assert is_compatible(row, [make_run(price=2.0)]) and is_compatible(row, [make_run()])
    assert not is_compatible(row, [make_run(price=3.0)])
    assert is_compatible(row, [make_run("sam", price=3.0)])
    assert not is_compatible(row, [make_run("sam", price=3.0, budget=9)])


def test_without_time_nothing_is_timed(small, trained, console, monkeypatch):
    monkeypatch.setattr(module, "prices", lambda *_: pytest.fail("timed"))
    compare(small(), console)


def test_failures_are_tried_again_and_divergences_are_not(small, monkeypatch, make_row, console):
    status = iter(["failed", "diverged", "finished"])
    order = []

    def execute(runs, workers, deadline, keep=None, kind=None):
        for run in runs:
            order.append(run.seed)
            row = make_row(method=run.method, seed=run.seed) | {"key": run.key}
            row |= {"config": run.config, "status": next(status)}
            if row["status"] != "finished":
                row |= {"error": "made up", "final": None, "curve": None}
            yield Update(0, run, 1.0, row)

    monkeypatch.setattr(resume, "execute", execute)
    compare(small(methods=("sgd",)), console)
    outcome = compare(small(methods=("sgd",)), console)
    assert order == [0, 1, 0]
    assert len(lines(small())) == 2
    assert {row["seed"]: row["status"] for row in outcome.rows} == {0: "finished", 1: "diverged"}


def test_an_interrupt_keeps_what_is_finished_and_reports_it(small, monkeypatch, make_row, console):
    def execute(runs, workers, deadline, keep=None, kind=None):
        yield Update(0, runs[0], 1.0, make_row() | {"key": runs[0].key, "config": runs[0].config})
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "execute", execute)
    outcome = compare(small(), console)
    assert (outcome.trained, outcome.missing, len(lines(small()))) == (1, 3, 1)
    assert "SGD" in small().report.read_text()


def test_the_command_is_in_every_row(small, trained, console):
    compare(small(command="f3eo compare --seeds 2"), console)
    assert {row["command"] for row in lines(small())} == {"f3eo compare --seeds 2"}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"tasks": ("digit",)},
            "unknown task 'digit'; choose from digits-mlp, large-batch-digits, digits-few",
        ),
        ({"methods": ("adamax",)}, "unknown method 'adamax'; choose from sgd, adam, adamw"),
        ({"equal": ("steps",)}, "unknown kind of equality 'steps'; choose from cost, time"),
        ({"tasks": ()}, "no task given; choose from"),
        ({"methods": ("sgd", "sgd")}, "a method is named twice"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"budget": -1}, "budget must be at least 1, got -1"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"name": "a/b"}, "the name of a single folder, got 'a/b'"),
        ({"name": ".."}, "the name of a single folder, got '..'"),
        ({"overrides": {"sgd": {"rho": 1}}}, "sgd has no option 'rho'; it has lr"),
        ({"overrides": {"adamax": {"lr": 1}}}, "unknown method 'adamax'"),
    ],
)
def test_bad_input_is_named_with_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        Comparison(**changes)


def test_all_runs_are_on_the_device_and_in_the_precision_of_the_comparison(gpu):
    asked = Comparison(tasks=("digits-mlp",), methods=("sgd",), device="auto", precision="bf16")
    assert {(run.device, run.precision) for run in asked.runs()} == {("cuda", "bf16")}
    assert "device" not in Comparison(tasks=("digits-mlp",)).runs()[0].config
    with pytest.raises(ValueError, match="unknown precision 'fp8'; choose from float32, bf16"):
        Comparison(precision="fp8")
