"""Lightning: a small network learns scikit-learn's digits by automatic optimisation.

    python examples/lightning_module.py FOLDER

The three lines that F3EO changes are marked. `lightning.pytorch` works as `pytorch_lightning` does.
"""

import sys

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from f3eo import F3EO
from f3eo.integrations.lightning import F3EOMixin


class Digits(F3EOMixin, L.LightningModule):  # 1: the mixin
    """A network with one hidden layer."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def losses(self, batch, batch_idx):  # 2: was training_step, with a mean
        x, y = batch
        return F.cross_entropy(self.net(x), y, reduction="none")

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        optimizer = F3EO(self.net, torch.optim.AdamW, lr=3e-3)  # 3: around the optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def main(folder: str) -> float:
    """Train, and return the accuracy on digits that were held out."""
    L.seed_everything(1, verbose=False)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    training = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=16, shuffle=True)
    held_out = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=397)
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(Digits(), training, held_out)
    accuracy = float(trainer.callback_metrics["accuracy"])
    print(f"accuracy {accuracy:.3f} after {trainer.global_step} steps")
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])
