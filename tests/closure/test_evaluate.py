"""One evaluation of a closure: what it must return, what it may change, and how that comes back."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from f3eo import Categorical
from f3eo.closure.evaluate import check_reached, evaluate
from f3eo.closure.mixing import mixing_modules, refuse_mixing
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.snapshot import Snapshot


class Model(nn.Module):
    """Writes into one buffer, replaces another, makes a third, draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("late", None)

    def forward(self, x):
        self.written.add_(1)
        self.replaced = self.replaced + 1
        self.late = torch.ones(1)
        return F.dropout(self.layer(x), 0.5)


def problem(closure=None, batch=None, model=None, generator=None):
    torch.manual_seed(0)
    model = model or Model()
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    default = lambda x, y: F.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    batch = (x, y) if batch is None else batch
    parameters = list(model.parameters())
    return Problem(
        closure or default, batch, parameters, [True] * len(parameters), model, generator
    )


def run(p, **options):
    return evaluate(p, **({"per_sample": True, "differentiable": True} | options))


# What comes out.


def test_losses_have_one_value_a_sample_and_a_graph():
    output = run(problem())
    assert output.losses.shape == (4,) and output.losses.requires_grad
    assert output.likelihood is None


def test_further_dimensions_are_averaged():
    model = Model()
    p = problem(lambda x, y: model.layer(x).unsqueeze(2).expand(-1, -1, 3), model=model)
    expected = model.layer(p.batch[0]).mean(1)
    torch.testing.assert_close(run(p).losses, expected)


def test_a_likelihood_is_kept_beside_its_losses():
    model = Model()
    output = run(problem(lambda x, y: Categorical(model(x), y), model=model))
    assert isinstance(output.likelihood, Categorical) and output.losses.shape == (4,)


def test_a_scalar_counts_as_one_sample_where_it_may():
    model = Model()
    p = problem(lambda x, y: model(x).sum(), model=model)
    assert run(p, per_sample=False).losses.shape == (1,)
    with pytest.raises(ValueError, match=r'scalar.*reduction="none"'):
        run(p)


def test_graphs_are_built_whatever_the_surroundings():
    with torch.no_grad():
        assert run(problem()).losses.requires_grad


@pytest.mark.parametrize("differentiable", [True, False])
def test_attention_runs_on_the_mathematical_kernel_only_if_differentiated_twice(
    differentiable,
):
    q = torch.randn(4, 1, 3, 3, requires_grad=True)

    def closure(x):
        return F.scaled_dot_product_attention(q, q, q).flatten(1).sum(1)

    p = Problem(closure, (torch.zeros(4, 1),), [q], [True])
    losses = run(p, differentiable=differentiable).losses
    g = torch.autograd.grad(losses.sum(), q, create_graph=True)[0]
    if differentiable:
        assert torch.autograd.grad(g.square().sum(), q)[0].isfinite().all()
    else:
        with pytest.raises(RuntimeError, match=r"(?i)derivative|not implemented"):
            torch.autograd.grad(g.square().sum(), q)


def test_the_choice_of_attention_kernel_is_that_of_the_surroundings_afterwards():
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        run(problem())
        assert (
            torch.backends.cuda.flash_sdp_enabled() and not torch.backends.cuda.math_sdp_enabled()
        )


@pytest.mark.parametrize("fails", [False, True])
def test_grads_are_set_aside_and_put_back_the_very_same(fails):
    p = problem()
    p.parameters[0].grad = kept = torch.ones_like(p.parameters[0])
    value = kept.clone()

    def closure(x, y):
        assert p.parameters[0].grad is None
        loss = p.model(x).sum(1)
        if fails:
            loss.sum().backward()
        return loss

    if fails:
        with pytest.raises(RuntimeError, match=r"called backward\(\)"):
            run(problem(closure, model=p.model))
    else:
        run(problem(closure, model=p.model))
    assert p.parameters[0].grad is kept and torch.equal(kept, value)
    assert p.parameters[1].grad is None


def test_losses_that_reach_no_parameter_are_refused():
    check_reached([None, 1], [])
    with pytest.raises(ValueError, match=r"none of the 2 parameters.*model that was handed over"):
        check_reached([None, None], [torch.zeros(1)] * 2)


# Problems.


def test_a_part_of_a_problem_has_the_samples_at_its_places():
    part = problem().part(torch.tensor([2, 0]))
    assert part.batch[1].tolist() == [1, 0] and part.model is not None


def test_a_parameter_has_its_name_in_the_model_or_its_place_and_shape():
    p = problem()
    assert p.name(p.parameters[1]) == "layer.bias"
    bare = Problem(p.closure, p.batch, p.parameters)
    assert bare.name(p.parameters[1]) == "parameter 1 of shape (2,)"


NORMS = {
    "batch, training": (nn.BatchNorm1d(2), True),
    "batch, evaluation": (nn.BatchNorm1d(2).eval(), False),
    "batch without statistics": (nn.BatchNorm1d(2, track_running_stats=False).eval(), True),
    "synchronised": (nn.SyncBatchNorm(2), True),
    "lazy": (nn.LazyBatchNorm1d(), True),
    "instance": (nn.InstanceNorm1d(2), False),
    "group": (nn.GroupNorm(1, 2), False),
    "layer": (nn.LayerNorm(2), False),
}


@pytest.mark.parametrize("name", NORMS)
def test_modules_that_mix_samples_are_found(name):
    module, mixes = NORMS[name]
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(module))
    assert mixing_modules(model) == (["1.0"] if mixes else [])
    assert mixing_modules(None) == []


def test_the_refusal_names_the_modules():
    model = nn.Sequential(*[nn.BatchNorm1d(2) for _ in range(5)])
    with pytest.raises(ValueError, match=r"the trace needs.*0, 1, 2, … normalise.*GroupNorm"):
        refuse_mixing(model, "the trace")


# The snapshot around a closure.


def state(p):
    model = p.model
    return (
        model.written.tolist(),
        model.replaced.tolist(),
        model.late if model.late is None else model.late.tolist(),
        torch.get_rng_state().tolist(),
        p.generator and p.generator.get_state().tolist(),
    )


def test_the_world_is_put_back_whole():
    p = problem(generator=torch.Generator().manual_seed(1))
    tensors, before = (p.model.written, p.model.replaced), state(p)
    snapshot = Snapshot(p)
    run(p)
    torch.rand(3, generator=p.generator)
    p.parameters[0].grad = torch.ones_like(p.parameters[0])
    assert state(p) != before
    snapshot.restore()
    assert state(p) == before and p.parameters[0].grad is None
    assert (p.model.written, p.model.replaced)[0] is tensors[0]
    assert p.model.replaced is tensors[1]


def test_buffers_alone_can_be_put_back():
    p = problem()
    before, snapshot = state(p), Snapshot(p)
    run(p)
    snapshot.restore_buffers()
    assert state(p)[:3] == before[:3] and state(p)[3] != before[3]


def test_buffers_lent_are_copies_and_shared_ones_stay_shared():
    p = problem()
    p.model.layer.register_buffer("alias", p.model.written)
    original, snapshot = p.model.written, Snapshot(p)
    snapshot.install_buffer_copies()
    p.model.written.add_(1)
    assert p.model.layer.alias is p.model.written and original.tolist() == [0, 0]
    snapshot.restore()
    assert p.model.layer.alias is p.model.written is original and original.tolist() == [0, 0]


def test_buffers_that_do_not_outlive_a_save_are_put_back_too():
    p = problem()
    p.model.register_buffer("passing", torch.zeros(1), persistent=False)
    snapshot = Snapshot(p)
    p.model.passing.add_(1)
    snapshot.restore()
    assert p.model.passing.tolist() == [0]


# Replays.


def test_a_replay_runs_first_as_usual_and_then_leaves_no_trace():
    p = problem(generator=torch.Generator().manual_seed(1))
    replay = Replay(lambda: [run(p).losses.sum()], p)
    first = replay()
    after = state(p)
    assert after[0] == [1, 1]
    torch.rand(5)
    moved = state(p)
    assert torch.equal(replay()[0], first[0])  # the same dropout mask
    assert state(p) == moved
    assert torch.equal(replay()[0], first[0])


def test_a_replay_that_fails_leaves_no_trace_either():
    p = problem()
    calls = []

    def function():
        calls.append(1)
        result = [run(p).losses.sum()]
        if len(calls) == 2:
            raise ZeroDivisionError
        return result

    replay = Replay(function, p)
    replay()
    before = state(p)
    with pytest.raises(ZeroDivisionError):
        replay()
    assert state(p) == before


def test_the_graph_of_a_replay_survives_the_return_of_the_buffers():
    """A BatchNorm in training keeps its statistics for the backward pass."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    p = problem(lambda x, y: model(x).sum(1), model=model)
    replay = Replay(lambda: [run(p).losses.square().sum()], p)
    gradients = [torch.autograd.grad(replay()[0], p.parameters) for _ in range(3)]
    assert model[1].num_batches_tracked == 1
    for again in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], again, strict=True))
