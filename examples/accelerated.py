"""Hugging Face Accelerate: a small network learns scikit-learn's digits.

    python examples/accelerated.py

The three lines that F3EO changes are marked.
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from f3eo import F3EO
from f3eo.integrations.accelerate import backward


def main(epochs: int = 4) -> float:
    """Train, and return the accuracy on digits that were held out."""
    set_seed(1)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    training = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=16, shuffle=True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = F3EO(model, torch.optim.AdamW, lr=3e-3)  # 1: around the optimizer
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 44 * epochs)
    model, optimizer, training, scheduler = accelerator.prepare(
        model, optimizer, training, scheduler
    )

    def losses(x, y):
        return F.cross_entropy(model(x), y, reduction="none")  # 2: a loss for every sample

    for _ in range(epochs):
        for x_part, y_part in training:
            with accelerator.accumulate(model):
                backward(optimizer, losses, x_part, y_part)  # 3: was accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    with torch.no_grad():
        accuracy = float((model(x[1400:]).argmax(1) == y[1400:]).float().mean())
    print(f"accuracy {accuracy:.3f} after {optimizer.optimizer.steps} steps")
    return accuracy


if __name__ == "__main__":
    main()
