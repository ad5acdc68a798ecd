import io
import json
import sys
import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from bench.continual.blobs import BLOBS, made
from f3eo import cli
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan import carry, prices
from f3eo.bench.continual.plan.carry import carry_out_study, choose_options
from f3eo.bench.continual.plan.standings import table
from f3eo.bench.continual.plan.study import QUICK, USUAL, StreamStudy
from f3eo.bench.continual.plan.tuning import SEED, Setting, best, draw
from f3eo.bench.continual.run.row import record
from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.execute import resume
from f3eo.bench.execute.disk import Damaged
from f3eo.bench.execute.pool import Update
from f3eo.bench.execute.store import read


@pytest.fixture
def make(blobs, tmp_path):
    def made_study(**changes):
        usual = {"name": "small", "streams": ("blobs",), "learners": ("sgd", "replay")}
        usual |= {"trials": 2, "seeds": 2, "stages": None, "samples": 40, "equal": ("steps",)}
        return StreamStudy(**(usual | {"folder": tmp_path} | changes))

    return made_study


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def executed(monkeypatch):
    """Runs are carried out in this process and noted; an interrupt follows the given number."""
    noted, stop = [], {"after": None}

    def execute(runs, workers, deadline, keep=None, kind=None):
        for run in runs:
            if len(noted) == stop["after"]:
                raise KeyboardInterrupt
            noted.append(run)
            yield Update(0, run, 0.0)
            yield Update(0, run, 1.0, kind.record(run))

    monkeypatch.setattr(resume, "execute", execute)
    return noted, stop


@pytest.fixture
def timed(monkeypatch):
    """Replaces the timing: a step of replay takes twice as long."""
    found = {("blobs", "sgd"): 1.0, ("blobs", "replay"): 2.0}
    monkeypatch.setattr(carry, "prices", lambda streams, learners, path, tell: found)
    return found


def test_results_are_ordered_by_seed_and_both_kinds_share_the_chosen_options(make, timed):
    study = make(equal=("steps", "time"))
    chosen = {key: {**options, "lr": 0.07} for key, options in study.defaults.items()}
    runs = study.result_runs(chosen, timed)
    who = [(run.seed, run.equal, run.learner, run.price) for run in runs]
    assert who == [
        (seed, equal, learner, price if equal == "time" else None)
        for seed in range(2)
        for equal in ("steps", "time")
        for learner, price in (("sgd", 1.0), ("replay", 2.0))
    ]
    assert {run.options["lr"] for run in runs} == {0.07}
    assert {(run.kind, run.stages, run.batch, run.samples) for run in runs} == {
        ("result", 3, 10, 40)
    }


def test_trials_are_equally_many_on_the_first_stages_with_a_seed_of_their_own(make):
    runs = make(trials=3).trial_runs()
    assert [run.learner for run in runs] == ["sgd", "replay"] * 3
    assert {(run.seed, run.kind, run.stages) for run in runs} == {(SEED, "trial", 2)}
    assert {run.price for run in runs} == {None} and len({run.key for run in runs}) == 6
    assert {run.stages for run in make(stages=1).trial_runs()} == {1}
    assert runs[0].options == PEERS["sgd"].options()


def test_more_trials_extend_the_points_and_equal_spaces_share_them():
    first, *others = draw("permuted-mnist", PEERS["sgd"], 4)
    assert first == {name: PEERS["sgd"].defaults[name] for name in PEERS["sgd"].space}
    assert draw("permuted-mnist", PEERS["sgd"], 2) == [first, others[0]]
    assert draw("permuted-mnist", PEERS["replay"], 4)[1:] == others  # lr and momentum as SGD
    assert draw("rotated-mnist", PEERS["sgd"], 4)[1:] != others
    for point in others:
        for name, range_ in PEERS["sgd"].space.items():
            assert 0.99 * range_.low <= point[name] <= 1.01 * range_.high


def trial(lr, scores, status="finished", loss=1.0):
    config = {"options": {"lr": lr}}
    losses = [[loss] * len(row) for row in scores]
    return {"config": config, "scores": scores, "losses": losses, "status": status}


def test_the_best_average_is_chosen_ties_by_the_loss_and_lost_settings_never():
    low, high = [[0.0, 0.0], [0.9, 0.0], [0.3, 0.9]], [[0.0, 0.0], [0.7, 0.0], [0.7, 0.7]]
    rows = [trial(1, low), trial(2, high), trial(3, [[0.0, 0.0]], "diverged")]
    assert best(rows, "accuracy").options == {"lr": 2}
    assert best(rows, "error").options == {"lr": 1}  # lower is better
    assert best([*rows, trial(4, high, loss=0.5)], "accuracy").options == {"lr": 4}
    assert best([*rows, trial(2, high, "failed")], "accuracy").options == {"lr": 1}
    assert best(rows[2:], "accuracy") is None


def test_where_no_trial_finished_the_defaults_are_taken(make):
    study = make()
    assert choose_options(study, []) == study.defaults


def test_a_study_tunes_chooses_and_keeps_rows_as_lines_and_as_a_table(
    make, console, executed, monkeypatch
):
    seen = []

    def last(rows, metric):  # the best is another than the default
        seen.extend(rows)
        return Setting(rows[-1]["config"]["options"], 1.0, 1.0)

    monkeypatch.setattr(carry, "best", last)
    study = make(command="f3eo stream blobs")
    outcome = carry_out_study(study, console)
    assert len(outcome.trials) == 4 and len(outcome.results) == 4 and not outcome.missing
    assert seen == sorted(outcome.trials, key=lambda row: row["learner"] == "replay")
    for row in outcome.results:
        tried = [one for one in outcome.trials if one["learner"] == row["learner"]]
        assert row["config"]["options"] == tried[-1]["config"]["options"]
        assert row["config"]["options"] != study.defaults["blobs", row["learner"]]
        assert row["command"] == "f3eo stream blobs" and row["kind"] == "result"
    lines, damaged = read(study.path / "results.jsonl", carry.restore)
    assert lines == outcome.results and not damaged
    (study.path / "results.jsonl").unlink()  # the parquet file has all of them
    again = carry_out_study(study, console)
    assert again.results == outcome.results and len(executed[0]) == 8
    asked = json.loads((study.path / "study.json").read_text())
    assert asked["streams"]["blobs"]["metric"] == "accuracy" and asked["seeds"] == 2


def test_interrupted_and_started_again_nothing_is_lost_or_repeated(
    make, console, executed, timed, tmp_path
):
    noted, stop = executed
    shape = {"equal": ("steps", "time"), "seeds": 1}
    whole = carry_out_study(make(**shape, folder=tmp_path / "whole"), console)
    expected = [run.key for run in noted]
    assert len(expected) == len(set(expected)) == 4 + 4
    noted.clear()
    for after in (1, 4, 6, None):  # within the trials, and within the results
        stop["after"] = after
        cut = carry_out_study(make(**shape), console)
        assert (cut.missing > 0) == (after is not None)
    assert [run.key for run in noted] == expected

    def measured(rows):
        return [{n: r[n] for n in ("key", "scores", "losses", "structure", "unseen")} for r in rows]

    assert measured(cut.results) == measured(whole.results)
    assert measured(cut.trials) == measured(whole.trials)


def test_rows_of_another_setting_are_set_aside(make, console, executed):
    carry_out_study(make(), console)
    outcome = carry_out_study(make(samples=30), console)
    assert {row["config"]["samples"] for row in outcome.results} == {30}
    assert len(read(make().path / "earlier.jsonl", carry.restore)[0]) == 4


def test_a_price_is_the_time_of_a_step_over_that_of_sgd(blobs, monkeypatch, tmp_path):
    spin, lasting = prices._stepping, {"sgd": 1e-3, "replay": 3e-3, "agem": 2e-3}

    def slow(stream, name, options, samples):
        step = spin(stream, name, options, samples)

        def slower():
            end = time.process_time() + lasting[name]
            while time.process_time() < end:
                pass
            return step()

        return slower

    monkeypatch.setattr(prices, "_stepping", slow)
    monkeypatch.setattr(prices, "ROUNDS", 5)
    monkeypatch.setattr(prices, "STEPS", 2)
    path, told, before = tmp_path / "prices.json", [], torch.get_rng_state()
    first = prices.prices(("blobs",), ("replay",), path, told.append)
    assert 1.5 < first["blobs", "replay"] < 3.5 and told == ["timing 1 learners on blobs …"]
    again = prices.prices(("blobs",), ("sgd", "replay", "agem"), path)
    assert again["blobs", "replay"] == first["blobs", "replay"] and again["blobs", "sgd"] == 1.0
    assert 1.2 < again["blobs", "agem"] < 2.5
    assert json.loads(path.read_text())["plain_ms"]["blobs"] > 1
    assert torch.equal(torch.get_rng_state(), before)
    path.write_text('{"prices": {"blobs sgd": {"price": 0}}}')
    with pytest.raises(Damaged, match="must be positive"):
        prices.prices(("blobs",), ("sgd",), path)


def test_what_is_timed_is_the_second_stage(blobs, monkeypatch):
    calls = []

    class Noting:
        def begin(self, stage, steps):
            calls.append(("begin", stage))

        def step(self, closure, x, y):
            calls.append("step")
            return torch.tensor(0.0)

        def end(self, closure, batches):
            calls.append(("end", len(batches)))

    noting = replace(PEERS["sgd"], build=lambda model, options, seed: Noting())
    monkeypatch.setitem(PEERS, "sgd", noting)
    prices.step_times(BLOBS, {"sgd": {}}, rounds=5)
    first = [("begin", 0), *["step"] * prices.STEPS, ("end", 6), ("begin", 1)]
    assert len(calls) > len(first) and set(calls[: len(first)]) == set(first)
    assert set(calls[len(first) :]) == {"step"}


def test_a_learner_that_cannot_be_timed_has_price_1_and_the_reason_in_its_rows(
    blobs, monkeypatch, tmp_path
):
    def build(model, options, seed):
        raise ValueError("no such base")

    monkeypatch.setitem(PEERS, "agem", replace(PEERS["agem"], build=build))
    told = []
    found = prices.prices(("blobs",), ("sgd", "agem"), tmp_path / "prices.json", told.append)
    assert found["blobs", "agem"] == 1.0 and "agem cannot be timed on blobs" in told[-1]
    assert record(made("agem"))["error"] == "ValueError: no such base"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": ("blob",)}, "unknown stream 'blob'; choose from permuted-mnist"),
        ({"learners": ("sdg",)}, "unknown learner 'sdg'; choose from sgd"),
        ({"learners": ()}, "no learner given; choose from sgd"),
        ({"equal": ("cost",)}, "unknown kind of equality 'cost'; choose from"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"stages": 4}, "blobs has 3 stages, received stages=4; ask for at most 3"),
        ({"minutes": 0}, "minutes must be a positive number, got 0"),
        ({"name": "a/b"}, "single folder, got 'a/b'"),
    ],
)
def test_bad_input_is_refused_with_the_cure(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_the_usual_and_the_quick_study_are_valid(tmp_path):
    for settings in (USUAL, QUICK):
        assert StreamStudy(**settings, folder=tmp_path).trial_runs()


def test_the_table_lists_the_best_first_and_counts_lost_runs(blobs, console):
    def row(learner, seed, last, status="finished"):
        scores = [[0.0, 0.0], [0.9, 0.0], [last, 0.8]] if status == "finished" else []
        config = {"equal": "steps"}
        own = {"stream": "blobs", "learner": learner, "seed": seed, "kind": "result"}
        return own | {"status": status, "scores": scores, "config": config}

    rows = [row("sgd", 0, 0.4), row("sgd", 1, 0.6), row("replay", 0, 0.8)]
    rows.append(row("replay", 1, 0, "diverged"))
    console.print(table("blobs", "steps", ("sgd", "replay", "agem"), rows))
    lines = console.file.getvalue().splitlines()
    cells = [line.split() for line in lines if line.strip()][3:]
    assert cells[0] == ["replay", "80.00", "10.00", "80.00", "1", "1"]
    assert cells[1][:2] == ["SGD", "65.00"] and cells[1][-3:] == ["0.00", "2", "0"]
    assert cells[2] == ["A-GEM", "–", "–", "–", "0", "0"]


def test_errors_are_shown_as_they_are_and_differences_turned(console, monkeypatch):
    monkeypatch.setitem(STREAMS, "blobs", replace(BLOBS, metric="error"))
    scores = [[0.9, 0.9], [0.1, 0.9], [0.4, 0.2]]
    own = {"stream": "blobs", "learner": "sgd", "seed": 0, "kind": "result", "status": "finished"}
    rows = [own | {"scores": scores, "config": {"equal": "steps"}}]
    console.print(table("blobs", "steps", ("sgd",), rows))
    text = console.file.getvalue()
    assert "error, lower is better" in text
    assert text.splitlines()[-2].split() == ["SGD", "0.3000", "0.3000", "0.2000", "1", "0"]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs the command line in this process; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", "stream", *map(str, words)])
        code = cli.main()
        return code, *capsys.readouterr()

    return run


def test_the_command_line_runs_a_study(blobs, typed, executed, tmp_path):
    words = ["blobs", "--learners", "sgd", "--trials", "1", "--seeds", "2", "--equal", "steps"]
    words += ["--samples", "30", "--stages", "2", "--folder", tmp_path, "--name", "s"]
    code, out, error = typed(*words)
    assert code == 0 and not error
    assert "blobs, equal steps (%)" in out and "forgetting" in out and str(tmp_path / "s") in out
    assert {(run.stages, run.samples) for run in executed[0]} == {(2, 30)}
    executed[1]["after"] = len(executed[0])
    words[words.index("--seeds") + 1] = "3"
    code, out, _ = typed(*words)
    assert code == 130 and "Interrupted with 1 runs to go" in out


def test_a_wrong_name_is_one_line_on_stderr(blobs, typed, tmp_path):
    code, _, error = typed("mnist", "--folder", tmp_path)
    assert code == 2 and error.count("\n") == 1
    assert "unknown stream 'mnist'; choose from permuted-mnist" in error


def test_failures_are_told_by_stream_and_learner(blobs, typed, executed, monkeypatch, tmp_path):
    def build(model, options, seed):
        raise ValueError("broken")

    monkeypatch.setitem(PEERS, "sgd", replace(PEERS["sgd"], build=build))
    code, out, error = typed(
        *("blobs", "--learners", "sgd", "--trials", "1", "--seeds", "1", "--equal", "steps"),
        *("--folder", tmp_path),
    )
    assert "blobs, sgd: 2 failed: ValueError: broken" in out
    assert code == 2 and "every run failed" in error


def test_streams_are_the_same_objects_for_all_parts():
    assert set(USUAL["streams"]) <= set(STREAMS)
