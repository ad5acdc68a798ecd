"""One evaluation of a closure: what it may return, and what the evaluation leaves unchanged."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from closure.helpers import Model, problem, run
from f3eo import Categorical
from f3eo.closure.evaluate import check_reached
from f3eo.closure.problem import Problem


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
