"""Groups are read again where they changed, and only there."""

import pytest
import torch
from torch import nn

from f3eo.optimizer.parameters import Groups, trained_parameters


def _added(groups):
    groups.append({**groups[0], "params": [nn.Parameter(torch.ones(3))]})


CHANGES = {
    "lr": lambda groups: groups[0].update(lr=0.7),
    "lr in place": lambda groups: groups[1]["lr"].mul_(3),
    "maximize": lambda groups: groups[0].update(maximize=True),
    "structure": lambda groups: groups[1].update(structure=False),
    "names": lambda groups: groups[0].update(param_names=["a", "b"]),
    "frozen": lambda groups: groups[0]["params"][1].requires_grad_(False),
    "another tensor": lambda groups: groups[0]["params"].__setitem__(
        0, nn.Parameter(groups[0]["params"][0].detach().clone())
    ),
    "order": lambda groups: groups[0]["params"].reverse(),
    "moved to another group": lambda groups: groups[1]["params"].insert(
        0, groups[0]["params"].pop()
    ),
    "added": _added,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_a_group_is_seen(change):
    parameters = [nn.Parameter(torch.ones(size)) for size in (2, 2, 4)]
    groups = [
        {"params": parameters[:2], "lr": 0.1, "structure": True},
        {"params": parameters[2:], "lr": torch.tensor(0.2), "structure": True},
    ]
    read = Groups()
    before = read(groups)
    assert read(groups) is before
    change(groups)
    after, truth = read(groups), trained_parameters(groups)
    assert after is not before and read(groups) is after
    for name, value in vars(truth).items():
        own = getattr(after, name)
        if name in ("parameters", "frozen", "chosen"):
            own, value = list(map(id, own)), list(map(id, value))
        assert own == value, name
