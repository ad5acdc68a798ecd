"""Every Python block of the README and of the pages beside it runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import f3eo
from dense import relative, truth
from f3eo.fisher.ghost.registry import RULES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "docs" / "choose.md", ROOT / "docs" / "benchmark.md"]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
]


class MyScale(nn.Module):
    """The layer of one's own that the README registers a rule for."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_block(block):
    torch.manual_seed(0)
    model = nn.Sequential(MyScale(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(6, 4), torch.randint(3, (6,))

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    names = {name: getattr(f3eo, name) for name in f3eo.__all__}
    names |= {"torch": torch, "F": F, "model": model, "closure": closure, "MyScale": MyScale}
    names |= {"x": x, "y": y, "loader": [(x, y)], "micro_batches": [(x, y)]}
    names |= {"body": list(model[1].parameters()), "head": list(model[3].parameters())}
    before = [p.detach().clone() for p in model.parameters()]
    try:
        exec(block, names)
        if MyScale in RULES:
            trace = f3eo.fisher_trace(model, closure, x, y)[1]
            assert relative(trace, truth(model, closure, x, y).trace) < 1e-5
    finally:
        RULES.pop(MyScale, None)
    if "step(" in block:
        changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert any(changed)


def test_there_are_blocks():
    assert len(BLOCKS) >= 4


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)", page.read_text(encoding="utf-8"))
    assert links and all((page.parent / link).exists() for link in links)
