"""What each optimizer must pass that the tables of the other tests do not ask of all of them."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trust.helpers import ALL, F3EOS, SECOND, batches, flat, losses, made, net, run

pytestmark = pytest.mark.filterwarnings("ignore:F3EO knows no metric of Muon")


def saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("name", ALL)
def test_a_loaded_optimizer_and_a_copy_go_on_in_lockstep(name):
    """Through torch.save(weights_only=True), deepcopy and pickle; what is loaded is not changed."""
    model, optimizer = made(name)
    run(model, optimizer, batches(3))
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    kept, random = saved(state), torch.get_rng_state()
    before = repr(kept["optimizer"])
    loaded = made(name)
    loaded[0].load_state_dict(kept["model"])
    loaded[1].load_state_dict(kept["optimizer"])
    assert repr(kept["optimizer"]) == before
    twins = [
        loaded,
        copy.deepcopy((model, optimizer)),
        pickle.loads(pickle.dumps((model, optimizer))),
    ]
    rest = batches(7)[3:]
    torch.set_rng_state(random)
    expected = run(model, optimizer, rest)
    for twin, other in twins:
        torch.set_rng_state(random)
        assert run(twin, other, rest) == expected
        assert torch.equal(flat(twin), flat(model))


@pytest.mark.parametrize("name", ALL)
def test_all_hooks_fire_once(name):
    model, optimizer = made(name)
    called = []
    for kind in (
        *("step_pre", "step_post", "state_dict_pre", "state_dict_post"),
        *("load_state_dict_pre", "load_state_dict_post"),
    ):
        register = getattr(optimizer, f"register_{kind}_hook")
        register(lambda *_, kind=kind: called.append(kind))
    run(model, optimizer, batches(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == [
        *("step_pre", "step_post", "state_dict_pre", "state_dict_post"),
        *("load_state_dict_pre", "load_state_dict_post"),
    ]


class Scaled(nn.Module):
    """Two layers, one of them in use now and then, and a scale without dimension."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.first, self.second = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
        self.both = True

    def forward(self, x):
        y = self.scale * self.first(x)
        return y + self.second(x) if self.both else y


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_foreach_equals_the_loop(name):
    """In parameters and state, with a scalar tensor and a step where some have no gradient."""
    ends = []
    for foreach in (False, True):
        model, optimizer = made(name, Scaled(), foreach=foreach)
        for i, batch in enumerate(batches(6)):
            model.both = i not in (1, 2)
            run(model, optimizer, [batch])
        states = [optimizer.base.state[p] for p in model.parameters()]
        ends.append((flat(model), [s[k] for s in states for k in sorted(s)]))
    assert torch.allclose(ends[0][0], ends[1][0], rtol=1e-13, atol=0)
    for a, b in zip(ends[0][1], ends[1][1], strict=True):
        assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", F3EOS)
def test_micro_batches_equal_the_large_batch(name):
    """Of unequal sizes, over measured steps and those between."""
    ends = []
    for sizes in ([6], [3, 2, 1]):
        model, optimizer = made(name, fraction=1)
        model.eval()
        for x, y in batches(4):
            for part in zip(x.split(sizes), y.split(sizes), strict=True):
                optimizer.accumulate(losses(model), *part)
            optimizer.step()
        ends.append(flat(model))
    assert torch.allclose(ends[0], ends[1], rtol=1e-6, atol=1e-8)
    assert not torch.allclose(ends[0], flat(made(name)[0]), rtol=1e-2)


@pytest.mark.parametrize("name", list(SECOND))
def test_scalars_and_unused_parameters_are_trained(name):
    model, optimizer = made(name, Scaled())
    model.both = False
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, *_, last = run(model, optimizer, batches(1) * 6)
    after = model.state_dict()
    assert last < first and not torch.equal(before["scale"], after["scale"])
    assert torch.equal(before["second.weight"], after["second.weight"])


@pytest.mark.parametrize("name", ALL)
def test_parameters_that_are_not_contiguous_train_as_others(name):
    ends = []
    for strided in (False, True):
        model = net(bias=name != "muon")
        if strided:
            for p in model.parameters():
                if p.dim() == 2:
                    p.data = p.detach().t().contiguous().t()
            assert not model[0].weight.is_contiguous()
        model, optimizer = made(name, model)
        torch.manual_seed(4)
        run(model, optimizer, batches(4))
        ends.append(flat(model))
    assert torch.allclose(ends[0], ends[1], rtol=1e-6, atol=1e-9)


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("name", ALL)
@given(sizes=st.lists(st.sampled_from([1, 2, 5]), min_size=1, max_size=4))
def test_batches_of_any_size_and_of_one_sample(name, sizes):
    model, optimizer = made(name)
    for size in sizes:
        (found,) = run(model, optimizer, batches(1, size))
        assert found > 0
    assert optimizer.steps == len(sizes) and flat(model).isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_none_is_refused_or_skipped_and_leaves_everything(name):
    model, optimizer = made(name)
    before, (x, y) = flat(model), batches(1)[0]
    skipped = pytest.warns(UserWarning, match="not finite: the step is skipped")
    with skipped if name in SECOND else pytest.raises(ValueError, match="no samples"):
        optimizer.step(losses(model), x[:0], y[:0])
    assert torch.equal(flat(model), before) and optimizer.steps == 0


def closure_that_throws(model):
    def closure(x, y):
        model(x)
        torch.randn(3)
        raise ZeroDivisionError("in the closure")

    return closure


def closure_that_is_not_finite(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none") * float("nan")


@pytest.mark.parametrize("name", ALL)
def test_a_step_that_fails_leaves_weights_state_and_random_numbers(name):
    model, optimizer = made(name)
    run(model, optimizer, batches(2))
    before, state, random = flat(model), repr(optimizer.state_dict()), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure_that_throws(model), *batches(1)[0])
    assert torch.equal(flat(model), before) and torch.equal(torch.get_rng_state(), random)
    assert repr(optimizer.state_dict()) == state


@pytest.mark.parametrize("name", [*F3EOS, "newton"])
def test_a_step_that_is_not_finite_moves_nothing(name):
    model, optimizer = made(name)
    run(model, optimizer, batches(2))
    before = flat(model)
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(closure_that_is_not_finite(model), *batches(1)[0])
    assert torch.equal(flat(model), before)


BAD = {
    "negative lr": ({"lr": -1.0}, None, "-1.0"),
    "two lr": ({"lr": torch.tensor([0.1, 0.2])}, None, "1-element|number|tensor|one"),
    "no parameters": ({}, [], "empty parameter list"),
    "an empty group": ({}, [{"params": []}, {"params": [nn.Parameter(torch.eye(2))]}], None),
    "a parameter twice": ({}, lambda p: [{"params": [p]}, {"params": [p]}], "more than one|twice"),
    "names of some": ({}, lambda p: [("a", p), nn.Parameter(torch.eye(2))], "named|names|tuple"),
    "complex": ({}, [nn.Parameter(torch.eye(2, dtype=torch.complex64))], "view_as_real"),
    "sparse": ({}, [torch.eye(2).to_sparse()], "to_dense"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(name, case):
    options, parameters, words = BAD[case]
    if callable(parameters):
        parameters = parameters(nn.Parameter(torch.eye(2)))
    if words is None:
        made(name, parameters)
        return
    with pytest.raises((ValueError, TypeError, RuntimeError), match=words):
        made(name, parameters, **options)
