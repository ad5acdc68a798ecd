import dataclasses

import pytest

from f3eo.bench.run.run import Run

CHANGES = {
    "task": "mnist1d-mlp",
    "method": "adamw",
    "seed": 1,
    "budget": 25,
    "batch": 7,
    "options": {"lr": 7.0},
    "evaluations": 5,
    "probe": 51,
    "split": "validation",
    "price": 1.5,
    "variant": "every=2",
    "device": "cuda",
    "precision": "bf16",
}


@pytest.mark.parametrize("name", CHANGES)
def test_everything_that_decides_the_result_decides_the_key(name, make_run):
    run = make_run()
    assert dataclasses.replace(run, **{name: CHANGES[name]}).key != run.key


def test_the_list_above_is_complete(make_run):
    assert set(CHANGES) == {field.name for field in dataclasses.fields(make_run())}


def test_the_key_does_not_depend_on_the_order_of_the_options(make_run):
    run = make_run()
    turned = dict(reversed(run.options.items()))
    assert dataclasses.replace(run, options=turned).key == run.key


def test_rows_from_before_there_were_prices_keep_their_key():
    run = Run("digits", "sgd", 0, 24, 50, {"lr": 0.1})
    assert run.key == "510153ffcfe9c59f" and run.equal == "cost"
    assert dataclasses.replace(run, price=2.0).equal == "time"
    assert dataclasses.replace(run, device="cpu", precision="float32").key == run.key


def test_the_setting_and_the_options_make_up_the_configuration(make_run):
    run = make_run()
    assert run.config == run.setting | {"options": run.options}
    timed = dataclasses.replace(run, price=2.0)
    assert timed.config == run.config | {"price": 2.0} and timed.setting == run.setting
    assert "options" not in run.setting and "seed" not in run.config


def test_device_and_precision_are_in_the_setting_where_they_are_not_the_default(make_run):
    run = make_run()
    assert not {"device", "precision"} & set(run.config)
    elsewhere = dataclasses.replace(run, device="cuda:1", precision="bf16")
    assert elsewhere.setting == run.setting | {"device": "cuda:1", "precision": "bf16"}
    identity = {"task": run.task, "method": run.method, "seed": run.seed}
    assert Run(**identity, **elsewhere.config) == elsewhere
