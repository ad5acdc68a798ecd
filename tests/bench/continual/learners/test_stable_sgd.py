import copy

import pytest
import torch
from torch import nn

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.learners.dropout import drawing_from, insert_dropout
from f3eo.bench.continual.learners.stable_sgd import rate


def test_the_rate_falls_by_gamma_from_stage_to_stage_down_to_a_floor():
    assert [rate(0.1, 0.5, k) for k in range(3)] == [0.1, 0.05, 0.025]
    assert rate(0.1, 0.5, 50) == 5e-5
    assert rate(1e-6, 0.5, 3) == 1e-6


@pytest.mark.parametrize("name", ["stable_sgd", "f3eo_stable", "f3eo_stable_elastic", "stable_ewc"])
def test_all_learners_of_the_recipe_have_its_rates_and_its_dropout(name):
    model = small_model()
    chosen = {"lr": 0.2, "gamma": 0.8, "dropout": 0.25}
    learner = PEERS[name].build(model, PEERS[name].options(chosen), 0)
    for stage, expected in enumerate((0.2, 0.16, 0.128)):
        learner.begin(stage, 1)
        rates = [group["lr"] for o in learner.optimizers for group in o.param_groups]
        assert rates == pytest.approx([expected])
        x, y = stage_batches(stage)[0]
        before = flat(model)
        learner.step(closure_of(model), x, y)
        assert not torch.equal(flat(model), before)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_the_step_is_that_of_sgd_on_one_masked_pass():
    model, seed = small_model(), 3
    masked = copy.deepcopy(model)
    masked.insert(2, nn.Dropout(0.25))
    x, y = stage_batches(0)[0]
    torch.manual_seed(seed)
    closure_of(masked)(x, y).mean().backward()
    expected = torch.cat([(p - 0.05 * p.grad).detach().flatten() for p in masked.parameters()])
    options = PEERS["stable_sgd"].options({"lr": 0.05, "dropout": 0.25})
    learner = PEERS["stable_sgd"].build(model, options, seed)
    learner.begin(0, 1)
    learner.step(closure_of(model), x, y)
    torch.testing.assert_close(flat(model), expected)


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    insert_dropout(model, 0.25)
    ones = torch.ones(40_000)
    torch.manual_seed(0)
    outputs = model(ones)
    assert outputs.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(outputs.mean()) == pytest.approx(1, abs=4 * (1 / 3 / 40_000) ** 0.5)
    assert torch.equal(model.eval()(ones), ones)


def test_a_copy_of_the_model_has_dropout_of_its_own():
    model = small_model()
    insert_dropout(model, 0.5)
    other = copy.deepcopy(model).eval()
    x = stage_batches(0)[0][0]
    assert torch.equal(other(x), other(x))
    assert not torch.equal(model(x), model(x))


def test_the_global_generator_stays_as_it_was_and_the_own_one_moves_on():
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with drawing_from(generator):
            draws.append(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(torch.cat(draws), torch.rand(6))


def test_what_the_recipe_cannot_use_is_refused():
    bare = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"Linear has no activation module for dropout=0\.5"):
        insert_dropout(bare, 0.5)
    insert_dropout(bare, 0.0)
    with pytest.raises(ValueError, match=r"a share in \[0, 1\), received 1.0"):
        insert_dropout(small_model(), 1.0)
    with pytest.raises(ValueError, match=r"a factor in \(0, 1\], received 1.5"):
        PEERS["stable_sgd"].build(small_model(), PEERS["stable_sgd"].options({"gamma": 1.5}), 0)
