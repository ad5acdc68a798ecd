"""What docs/continual.md says of the parts: what they keep, and the passes that they take."""

import pytest
from torch import Tensor
from torch.optim import SGD

from cases import WHOLE
from continual.truths import batch, exact, losses_of, network
from docs.pages import table
from f3eo import F3EO, Fixed
from f3eo.continual import Elastic, Exact, FromSteps, PathIntegral, Rehearsal, Reservoir

PARTS = {
    "`Rehearsal(memory)`": lambda: Rehearsal(Reservoir(100), 10),
    "`Elastic(Exact(), λ)`": lambda: Elastic(Exact(), 1.0),
    "`Elastic(FromSteps(), λ)`": lambda: Elastic(FromSteps(), 1.0),
    "`Elastic(PathIntegral(), λ, decay=1.0)`": lambda: Elastic(PathIntegral(), 1.0, decay=1.0),
}
MEMORY = {
    2: "two numbers a parameter",
    3: "three numbers a parameter",
    4: "four numbers a parameter",
}
PASSES = {0: "none", 1: "once over the data a task", 2: "one batch of 10 a step"}


def numbers(state) -> int:
    """Floating-point numbers in a nesting."""
    if isinstance(state, Tensor):
        return state.numel() * state.is_floating_point()
    items = state.values() if isinstance(state, dict) else state
    return sum(map(numbers, items)) if isinstance(state, (dict, list, tuple)) else 0


@pytest.mark.parametrize("row", table("continual.md", "part"), ids=lambda row: row[0])
def test_the_table_of_parts_says_what_they_keep_and_which_passes_they_take(row):
    part, model, calls = PARTS[row[0]](), network(), []

    def losses(x, y):
        calls.append(len(x))
        return losses_of(model)(x, y)

    optimizer = F3EO(model, SGD, lr=0.1, estimator=exact(), strength=Fixed(0.1), past=part, **WHOLE)
    for seed in range(2):
        optimizer.step(losses, *batch(12, seed))
    calls.clear()
    optimizer.consolidate(losses, [batch(12, 0)])
    passes = len(calls)
    calls.clear()
    optimizer.step(losses, *batch(12, 3))
    if isinstance(part, Rehearsal):
        assert row[2] == "the samples" and len(part.memory) == 36
        passes += 2 * (10 in calls)
    else:
        state = part.state_dict(list(model.parameters()))
        assert row[2] == MEMORY[numbers(state) / sum(p.numel() for p in model.parameters())]
    assert row[3] == PASSES[passes]
    assert set(calls) <= {10, 12}


def test_the_parts_of_the_table_are_all():
    assert {row[0] for row in table("continual.md", "part")} == set(PARTS)
