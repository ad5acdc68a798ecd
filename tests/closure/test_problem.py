"""Problems: their parts, the size of their batch, and the names of their parameters."""

import pytest
import torch

from closure.helpers import problem
from f3eo.closure import batch as batches
from f3eo.closure.problem import Problem


def test_samples_are_counted_once_and_not_again_in_parts(monkeypatch):
    p, calls = problem(), []
    monkeypatch.setattr(batches, "size", lambda b, size=batches.size: calls.append(b) or size(b))
    assert p.size == p.size == 4 and len(calls) == 1
    part = p.part(torch.tensor([2, 0, 1]))
    calls.clear()
    assert part.size == 3 and not calls
    assert part.size == batches.size(part.batch)


def test_a_batch_without_samples_has_no_size_in_its_parts_either():
    p = problem(batch=(torch.tensor(1.0), "constant"))
    assert p.size is None and p.part(torch.tensor([0])).size is None


def test_tensors_of_different_sizes_are_refused_when_the_size_is_used():
    p = problem(batch=(torch.zeros(4), torch.zeros(3)))
    with pytest.raises(ValueError, match=r"received sizes \[3, 4\]"):
        _ = p.size


def test_a_part_of_a_problem_has_the_samples_at_its_places():
    part = problem().part(torch.tensor([2, 0]))
    assert part.batch[1].tolist() == [1, 0] and part.model is not None


def test_a_parameter_has_its_name_in_the_model_or_its_place_and_shape():
    p = problem()
    assert p.name(p.parameters[1]) == "layer.bias"
    bare = Problem(p.closure, p.batch, p.parameters)
    assert bare.name(p.parameters[1]) == "parameter 1 of shape (2,)"
