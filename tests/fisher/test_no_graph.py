"""What an estimator gives has no graph, so that nothing of a batch outlives its step."""

import pytest
import torch
from torch import Tensor

from cases import case
from f3eo import Compiled, PerSample
from f3eo.closure.problem import Problem
from optimizer.helpers import ESTIMATORS

ALL = ESTIMATORS | {"default": PerSample, "compiled": lambda: Compiled(backend=None)}


def tensors(thing):
    """All tensors in the fields of an object, of its lists and of its fields' fields."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, (list, tuple)):
        return [t for part in thing for t in tensors(part)]
    return tensors(vars(thing)) if hasattr(thing, "__dict__") else []


@pytest.mark.parametrize("name", ALL)
def test_estimates_have_no_graph(name):
    c, estimator = case("mlp"), ALL[name]()
    parameters = list(c.model.parameters())
    structured = [True] * len(parameters)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        problem = Problem(c.drawn, c.batch, parameters, structured, c.model, draw)
        found = tensors(estimator.gradients(problem))
        assert len(found) > 2 * len(parameters)
        assert not [t for t in found if t.requires_grad]
