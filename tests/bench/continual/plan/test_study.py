import json

import pytest

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan import carry
from f3eo.bench.continual.plan.carry import carry_out_study, choose_options
from f3eo.bench.continual.plan.study import QUICK, USUAL, StreamStudy
from f3eo.bench.continual.plan.tuning import SEED, Setting
from f3eo.bench.execute.store import read


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
    assert {(run.kind, run.stages, run.batch, run.samples, run.tests) for run in runs} == {
        ("result", 3, 10, 40, None)
    }


def test_trials_are_equally_many_on_the_first_stages_with_a_seed_of_their_own(make):
    runs = make(trials=3).trial_runs()
    assert [run.learner for run in runs] == ["sgd", "replay"] * 3
    assert {(run.seed, run.kind, run.stages) for run in runs} == {(SEED, "trial", 2)}
    assert {run.price for run in runs} == {None} and len({run.key for run in runs}) == 6
    assert {run.stages for run in make(stages=1).trial_runs()} == {1}
    assert runs[0].options == PEERS["sgd"].options()


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": ("blob",)}, "unknown stream 'blob'; choose from permuted-mnist"),
        ({"learners": ("sdg",)}, "unknown learner 'sdg'; choose from sgd"),
        ({"learners": ()}, "no learner given; choose from sgd"),
        ({"equal": ("cost",)}, "unknown kind of equality 'cost'; choose from"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"tests": 0}, "tests must be at least 1, got 0"),
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
