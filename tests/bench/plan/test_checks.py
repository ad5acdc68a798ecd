"""Hyper-parameters from the command line: each has an effect, or is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from f3eo.bench.methods import METHODS
from f3eo.bench.plan.compare import Comparison
from f3eo.bench.plan.spaces import TUNED
from f3eo.bench.plan.study import Study
from f3eo.bench.tasks import TASKS
from f3eo.cli.compare import _overrides
from f3eo.cli.study_options import study_asked


def asked(*texts, methods=("sgd", "f3eo"), tasks=("wine",)):
    return Comparison(tasks=tasks, methods=methods, overrides=_overrides(texts))


@pytest.mark.parametrize(
    "texts, message",
    [
        (
            ["f3eo.ratio=0.2"],
            "f3eo.ratio=0.2 has no effect: the number of "
            f"strength={METHODS['f3eo'].defaults['strength']} is f3eo.value",
        ),
        (
            ["f3eo.strength=ratio", "f3eo.value=1"],
            "value=1 has no effect.* is f3eo.ratio; set that",
        ),
        (["f3eo.estimator=sign", "f3eo.power=2"], "power=2 has no effect: estimator=sign measures"),
        (["f3eo.estimator=sign", "f3eo.metric=rows"], "metric=rows has no effect: estimator=sign"),
        (["f3eo.estimator=sign", "f3eo.residuals=held"], "residuals=held has no effect: estimat"),
        (["f3eo.strength=ratio", "f3eo.limit=2"], "limit=2 has no effect: strength=ratio has no"),
        (["f3eo.rule=direct", "f3eo.every=3"], "every=3 has no effect: rule=direct measures at"),
        (["f3eo.value=0", "f3eo.every=1"], "every=1 has no effect: with f3eo.value=0 nothing is"),
        (["sam.rho=0.2"], "sam.rho has no effect: sam is not among the methods, sgd, f3eo; add it"),
        (["sgd.lr=1", "sgd.lr=2"], "sgd.lr twice"),
        (
            ["f3eo.strength=nope"],
            "f3eo.strength is one of ratio, fixed, cap, fitted, sensitivity",
        ),
        (
            ["f3eo.strength=0.2"],
            "f3eo.strength is one of ratio, fixed, cap, fitted, sensitivity",
        ),
        (["f3eo.base=adam"], "f3eo.base is one of sgd, adamw, muon, got 'adam'"),
        (["f3eo.every=2.5"], "f3eo.every takes a whole number, e.g. its default 5, got 2.5"),
        (["sgd.lr=NaN"], "sgd.lr takes a number, e.g. its default 0.3, got nan"),
        (["sgd.lr=1e999"], "sgd.lr takes a number, e.g. its default 0.3, got inf"),
        (["sgd.lr=true"], "sgd.lr takes a number, e.g. its default 0.3, got True"),
        (["sgd.lr=null"], "sgd.lr takes a number, e.g. its default 0.3, got None"),
    ],
)
def test_a_setting_without_effect_or_sense_is_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        asked(*texts)


@pytest.mark.parametrize("quoted", ["cap", '"cap"', "'cap'"])
def test_names_need_no_quotes(quoted):
    text = f"f3eo.strength={quoted}"
    (run,) = [run for run in asked(text, "f3eo.value=0.03").runs() if run.method == "f3eo"][:1]
    assert (run.options["strength"], run.options["value"]) == ("cap", 0.03)


def test_the_example_of_the_help_is_accepted():
    from f3eo.cli.compare import compare

    example = compare.__doc__.split("e.g. ")[1].split(".\n")[0].split()
    assert len(example) == 3 and asked(*example, tasks=tuple(TASKS)).runs()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"methods": ("sgd",), "base": "muon"}, "--base muon has no effect: none of the methods"),
        (
            {"tasks": ("wine",), "parts": ("ablation",)},
            "--only ablation has no effect: ablation varies f3eo",
        ),
        ({"tasks": ("wine",), "parts": ("results", "ablation")}, "--only ablation has no effect"),
    ],
)
def test_a_study_refuses_what_has_no_effect(tmp_path, changes, message):
    names = ("name", "tasks", "methods", "trials", "seeds", "scale", "base", "parts")
    given = [changes.get(name) for name in names]
    with pytest.raises(ValueError, match=message):
        study_asked(False, 1, "cpu", tmp_path, None, *given)


def test_a_study_without_its_usual_parts_is_none_of_its_faults(tmp_path):
    names = ("name", "tasks", "methods", "trials", "seeds", "scale", "base", "parts")
    given = [{"tasks": ("wine",), "methods": ("sgd",), "base": "usual"}.get(name) for name in names]
    assert isinstance(study_asked(False, 1, "cpu", tmp_path, None, *given), Study)


# Fixed weights and steps are compared as they are, without compiling.
PLAIN = {"estimator": "per_sample", "every": 1, "fraction": 0.5}
OTHER = {
    "max_iter": 2,
    "max_iterations": 1,
    "power": 1.5,
    "limit": 1e-5,
    "horizon": 3.0,
}
"""Where half of the value, or one more, is not allowed or reaches nothing on so small a model."""
UNCOMPARABLE = {"bsam"}
"""What raises in its first step."""


def end(method, options):
    """Parameters of a small model after some steps, as they are measured."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    stepper = METHODS[method].build(model, METHODS[method].options(options), 0)
    draw = torch.Generator().manual_seed(1)
    for _ in range(12):
        x, y = torch.randn(8, 6, generator=draw), torch.randint(3, (8,), generator=draw)
        stepper.step(lambda x, y: F.cross_entropy(model(x), y, reduction="none"), x, y)
    stepper.rest()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def settings():
    for name, method in METHODS.items():
        usual = PLAIN if name == "f3eo" else {}
        for base in ("sgd", "adamw") if "base" in method.defaults else ("",):
            yield name, {**usual, **({"base": base} if base else {})}
    for more in (
        *({"strength": strength} for strength in ("ratio", "fixed", "cap")),
        {"strength": "trace_target", "value": 0.05},
        {"strength": "free_energy", "value": 400},
        {"estimator": "exact"},
        *({"estimator": estimator, "limit": 9.0} for estimator in ("sign", "model_sampled")),
        {"estimator": "batch", "fraction": 1.0},
        {"rule": "direct", "strength": "ratio"},
        {"value": 0.0},
    ):
        yield "f3eo", {**PLAIN, **more}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method, given", list(settings()), ids=str)
def test_every_setting_has_an_effect_or_is_known_to_have_none(method, given):
    if method in UNCOMPARABLE:
        pytest.skip("raises in its first step, see `f3eo methods`")
    options = METHODS[method].options(given)
    usual, idle = end(method, options), METHODS[method].idle(options)
    for name, value in options.items():
        if isinstance(value, str) or (options.get("estimator"), name) == ("batch", "fraction"):
            continue  # names are tried one by one above; Batch takes the whole batch alone
        other = value + 2 if isinstance(value, int) else 0.5 * (value or 0.2)
        if name in OTHER and other != value:
            other = OTHER[name]
        if (name, value) == ("value", 0.0):
            continue
        changed = not torch.equal(end(method, {**options, name: other}), usual)
        assert changed == (name not in idle), (name, value, other)


def test_what_is_tuned_has_an_effect():
    from f3eo.bench.plan.spaces import space

    for method in TUNED:
        assert not set(space(method)) & set(METHODS[method].idle(METHODS[method].options()))
    for task in TASKS.values():
        for method, options in task.options.items():
            full = METHODS[method].options(options)
            assert not set(options) & set(METHODS[method].idle(full)), (task.name, method)
