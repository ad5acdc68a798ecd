"""Modules that mix the samples of a batch are found and named."""

import pytest
from torch import nn

from f3eo.closure.mixing import mixing_modules, refuse_mixing

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
