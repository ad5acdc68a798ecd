import pytest
import torch
from torch import nn

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.learners.agem import AGem, projected
from f3eo.continual import Reservoir


def test_a_gradient_against_the_reference_loses_its_part_along_it():
    # ⟨g, r⟩ = 3·(−1) + 1·1 + 0·2 = −2, ⟨r, r⟩ = 6, so g̃ = g + r/3.
    gradient = [torch.tensor([[3.0, 1.0]]), torch.tensor([0.0])]
    reference = [torch.tensor([[-1.0, 1.0]]), torch.tensor([2.0])]
    found = projected(gradient, reference)
    torch.testing.assert_close(found[0], torch.tensor([[8 / 3, 4 / 3]]))
    torch.testing.assert_close(found[1], torch.tensor([2 / 3]))
    flat_found, flat_reference = (torch.cat([t.flatten() for t in v]) for v in (found, reference))
    assert float(flat_found @ flat_reference) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("reference", [[3.0, -1.0], [1.0, -3.0], [0.0, 0.0]])
def test_any_other_gradient_stays_as_it_is(reference):
    gradient = [torch.tensor([3.0, 1.0])]
    assert projected(gradient, [torch.tensor(reference)]) is gradient


def test_a_step_does_not_raise_the_loss_of_the_memory_to_first_order():
    model = small_model()
    old, old_y = stage_batches(0)[0]
    new, new_y = old, (old_y + 1) % 3  # the same inputs with other labels: against the memory
    closure, parameters = closure_of(model), list(model.parameters())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(closure(x, y).mean(), parameters)])
        for x, y in ((new, new_y), (old, old_y))
    ]
    g, reference = gradients
    assert g @ reference < 0
    expected = g - (g @ reference) / (reference @ reference) * reference
    before, own = flat(model), closure(new, new_y).mean().detach()
    learner = AGem(parameters, torch.optim.SGD(parameters, lr=0.1), Reservoir(20), samples=8)
    learner.end(closure, [(old, old_y)])
    loss = learner.step(closure, new, new_y)
    torch.testing.assert_close(flat(model), before - 0.1 * expected)
    torch.testing.assert_close(loss, own)


def test_the_memory_holds_what_has_ended_and_not_the_current_stage():
    model = small_model()
    learner = PEERS["agem"].build(model, PEERS["agem"].options({"memory": 500}), 0)
    for stage in range(2):
        batches = stage_batches(stage, steps=5)
        for x, y in batches:
            learner.step(closure_of(model), x, y)
            assert len(learner.memory) == stage * 5 * 8
        learner.end(closure_of(model), batches)


def test_a_head_that_the_loss_does_not_use_is_no_error():
    heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    parameters = list(heads.parameters())
    learner = AGem(parameters, torch.optim.SGD(parameters, lr=0.1), Reservoir(4), samples=4)
    x, y = torch.ones(4, 2), torch.zeros(4)
    before = heads[1].weight.clone()
    learner.end(lambda x, y: heads[0](x).square().sum(1), [(x, y)])
    learner.step(lambda x, y: -heads[0](x).square().sum(1), x, y)
    assert torch.equal(heads[1].weight, before)
