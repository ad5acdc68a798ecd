"""F3EO is a torch optimizer: what is written for torch.optim works with it."""

import warnings

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as lr

from cases import WHOLE
from f3eo import F3EO, Cap, PerSample, Warmup
from optimizer.helpers import batches, losses, network, weights


def made(base=SGD, **options):
    model = network().model
    return model, F3EO(model, base, **WHOLE | {"lr": 0.1} | options)


def test_groups_are_those_of_the_base_and_state_is_not():
    model, optimizer = made(Adam)
    assert isinstance(optimizer, Optimizer)
    assert optimizer.param_groups is optimizer.base.param_groups
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    optimizer.step(losses(model), *batches(1)[0])
    assert optimizer.state is not optimizer.base.state
    assert all("exp_avg" in optimizer.base.state[p] for p in model.parameters())
    assert all("exp_avg" not in optimizer.state[p] for p in model.parameters())


def test_defaults_hold_those_of_the_base():
    _, optimizer = made(momentum=0.9)
    assert optimizer.defaults["momentum"] == 0.9


SCHEDULERS = {
    "StepLR": lambda o: lr.StepLR(o, 1, 0.5),
    "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, 10),
    "OneCycleLR": lambda o: lr.OneCycleLR(o, 0.3, total_steps=10),
    "ReduceLROnPlateau": lambda o: lr.ReduceLROnPlateau(o, patience=0, threshold=2.0),
    "LambdaLR": lambda o: lr.LambdaLR(o, lambda k: 1 / (k + 1)),
    "SequentialLR": lambda o: lr.SequentialLR(
        o, [lr.ConstantLR(o, 0.1, 2), lr.ExponentialLR(o, 0.5)], [2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("base", [SGD, Adam])
def test_schedulers_act_on_the_base_as_they_do_on_the_base_alone(name, base):
    """Learning rate, and the momentum that OneCycleLR moves, step by step; warnings are errors."""
    options = {"lr": 0.1} | ({"momentum": 0.9} if base is SGD else {})
    model, optimizer = made(base, **options)
    alone = base(network().model.parameters(), **options)
    schedulers = SCHEDULERS[name](optimizer), SCHEDULERS[name](alone)
    arguments = (1.0,) if name == "ReduceLROnPlateau" else ()
    rates = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The epoch parameter")
        for batch in batches(6):
            before = weights(model)
            optimizer.step(losses(model), *batch)
            alone.step()
            rates.append(optimizer.base.param_groups[0]["lr"])
            for key in {"lr", "momentum", "betas"} & alone.param_groups[0].keys():
                assert optimizer.base.param_groups[0][key] == alone.param_groups[0][key]
            assert not torch.equal(before, weights(model))
            for scheduler in schedulers:
                scheduler.step(*arguments)
    assert len(set(rates)) > 1


def test_the_learning_rate_of_a_scheduler_scales_gradient_and_structure_term_alike():
    for base in (SGD, Adam):
        moved = []
        for rate in (1e-3, 2e-3):
            model, optimizer = made(base, lr=7.0)
            lr.LambdaLR(optimizer, lambda k, rate=rate: rate / 7.0)
            before = weights(model)
            optimizer.step(losses(model), *batches(1)[0])
            moved.append(weights(model) - before)
        torch.testing.assert_close(moved[1], 2 * moved[0], rtol=1e-9, atol=1e-12)


def test_step_hooks_fire_and_see_the_batch():
    model, optimizer = made()
    seen = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("pre", len(args))))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("post", len(args))))
    optimizer.step(losses(model), *batches(1)[0])
    assert seen == [("pre", 4), ("post", 4)]


def test_state_dict_hooks_fire():
    _, optimizer = made()
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("state pre"))
    optimizer.register_state_dict_post_hook(lambda o, s: seen.append("state post"))
    optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append("load pre"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load post"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["state pre", "state post", "load pre", "load post"]


def test_hooks_see_and_may_replace_the_whole_state_dict():
    _, optimizer = made()
    seen = []
    optimizer.register_state_dict_post_hook(lambda o, s: seen.append(set(s)))
    optimizer.register_load_state_dict_pre_hook(
        lambda o, s: s | {"f3eo": s["f3eo"] | {"steps": 41}}
    )
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.steps))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == [{"state", "param_groups", "base", "f3eo"}, 41]
    assert optimizer.steps == 41


@pytest.mark.parametrize("kind", ["list", "generator", "tensor", "named"])
def test_an_added_group_is_trained_with_its_own_options(kind):
    case = network()
    first, second = case.model[0], case.model[2]
    params = {
        "list": lambda: list(second.parameters()),
        "generator": second.parameters,
        "tensor": lambda: second.weight,
        "named": second.named_parameters,
    }[kind]()
    given = first.named_parameters() if kind == "named" else first.parameters()
    optimizer = F3EO(given, SGD, lr=0.1, fraction=1, every=1)
    optimizer.step(case.losses, *case.batch)
    optimizer.add_param_group({"params": params, "lr": 0.0 if kind == "list" else 0.2})
    group = optimizer.base.param_groups[1]
    assert optimizer.param_groups[1] is group
    assert group["params"][0] is second.weight and group["structure"] is True
    before = second.weight.clone()
    optimizer.step(case.losses, *case.batch)
    assert torch.equal(before, second.weight) == (kind == "list")


def test_an_added_group_may_stay_out_of_the_structure_term():
    case = network()
    optimizer = F3EO(case.model[0].parameters(), SGD, lr=0.1, fraction=1, every=1)
    optimizer.add_param_group({"params": case.model[2].parameters(), "structure": False})
    optimizer.step(case.losses, *case.batch)
    assert [group["structure"] for group in optimizer.param_groups] == [True, False]


def test_zero_grad_clears_as_torch_does():
    model, optimizer = made()
    optimizer.step(losses(model), *batches(1)[0])
    assert all(p.grad is not None and p.grad.grad_fn is None for p in model.parameters())
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_gradients_left_from_elsewhere_do_not_count():
    clean, dirty = made()[0], made()[0]
    for model in (clean, dirty):
        optimizer = F3EO(model, SGD, lr=0.1, fraction=1, every=1)
        if model is dirty:
            losses(model)(*batches(1)[0]).sum().backward()
        optimizer.step(losses(model), *batches(1)[0])
    assert torch.equal(weights(clean), weights(dirty))


def test_step_returns_the_mean_loss_detached():
    model, optimizer = made()
    batch = batches(1)[0]
    expected = losses(model)(*batch).mean()
    loss = optimizer.step(losses(model), *batch)
    assert loss == expected and not loss.requires_grad


def test_step_works_under_no_grad():
    one, two = made(), made()
    one[1].step(losses(one[0]), *batches(1)[0])
    with torch.no_grad():
        two[1].step(losses(two[0]), *batches(1)[0])
    assert torch.equal(weights(one[0]), weights(two[0]))


def test_repr_is_the_method_in_a_line():
    _, optimizer = made(momentum=0.25)
    estimator = "PerSample(metric=ByRow(), hold_residuals=True)"
    parts = f"{estimator}, Decoupled(), Sensitivity()"
    assert repr(optimizer) == f"F3EO(SGD(lr=0.1, momentum=0.25), {parts}, fraction=1, every=1)"
    model = network().model
    groups = [{"params": model[0].parameters()}, {"params": model[2:].parameters(), "lr": 0.5}]
    groups[1]["structure"] = False
    parts = {"estimator": PerSample(), "strength": Cap(1, schedule=Warmup(3))}
    optimizer = F3EO(groups, Adam, lr=0.01, max_norm=2.0, **parts)
    assert repr(optimizer).splitlines() == [
        "F3EO(Adam(lr=0.01), PerSample(), Decoupled(), Cap(1, schedule=Warmup(3)), fraction=None, "
        "every=5, max_norm=2.0)",
        "  group 0: 2 parameters, lr=0.01",
        "  group 1: 4 parameters, lr=0.5, structure=False",
    ]


def test_a_built_base_keeps_what_it_was():
    model = network().model
    base = SGD([{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}])
    optimizer = F3EO(model, base, fraction=1, every=1)
    assert optimizer.base is base
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1e-3]


def test_stochastic_weight_averaging_takes_it():
    model, optimizer = made()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    swa = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    for batch in batches(3):
        optimizer.step(losses(model), *batch)
        averaged.update_parameters(model)
        swa.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.05)
