"""What docs/loops.md shows runs, and no row of its table says no."""

import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from docs.pages import names, table, text
from f3eo import F3EO

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def block(containing):
    blocks = re.findall(r"```py\n(.*?)```", text("loops.md"), re.S)
    (found,) = [b for b in blocks if containing in b]
    return found


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_every_row_works():
    rows = table("loops.md", "loop")
    assert len(rows) >= 10
    assert all("yes" in works for _, works, _ in rows)


def test_the_lines_for_the_trainer(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    from transformers import BertConfig, BertForSequenceClassification

    monkeypatch.chdir(tmp_path)
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=8))
    data = [{"input_ids": torch.arange(5), "labels": torch.tensor(1)} for _ in range(8)]
    space = {"model": model, "data": data}
    exec(block("F3EOTrainer"), space)
    trainer = space["trainer"]
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, F3EO) and optimizer.param_groups[0]["lr"] == 1e-3


def test_the_loop_of_accelerate():
    accelerate = pytest.importorskip("accelerate")
    space = names()
    accelerator = accelerate.Accelerator(cpu=True)
    scheduler = torch.optim.lr_scheduler.ConstantLR(space["optimizer"])
    given = (space["model"], space["optimizer"], scheduler)
    ready = accelerator.prepare(*given)
    space |= {"accelerator": accelerator}
    space |= dict(zip(("model", "optimizer", "scheduler"), ready, strict=True))
    before = vector(space["model"])
    exec(block("accelerator"), space)
    assert not torch.equal(vector(space["model"]), before)


def test_the_module_of_lightning(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")
    space = names() | {"LightningModule": lightning.LightningModule}
    exec(block("LightningModule"), space)
    model = space["Module"]()
    model.net = nn.Linear(4, 3)
    before = vector(model.net)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    run = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=1,
        enable_checkpointing=False,
        default_root_dir=str(tmp_path),
        **quiet,
    )
    run.fit(model, DataLoader(TensorDataset(space["x"], space["y"]), batch_size=3))
    assert run.global_step == 2 and not torch.equal(vector(model.net), before)


def test_the_lines_for_graphs():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, edges, graph):
            x = self.layer(x + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]))
            return x.new_zeros(3, 3).index_add(0, graph, x)

    torch.manual_seed(0)
    edges, graph = torch.tensor([[0, 1, 3], [1, 0, 4]]), torch.tensor([0, 0, 1, 2, 2])
    data = SimpleNamespace(x=torch.randn(5, 4), edge_index=edges, batch=graph)
    data.y = torch.tensor([0, 1, 2])
    model = Network()
    optimizer = F3EO(model, torch.optim.SGD, lr=0.1)
    before = vector(model)
    exec(
        block("edge_index"),
        {"torch": torch, "F": F, "model": model} | dict(data=data, optimizer=optimizer),
    )
    assert not torch.equal(vector(model), before)
