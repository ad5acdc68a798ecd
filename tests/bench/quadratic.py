"""A quadratic loss whose steps are known on dense vectors."""

import torch
from torch import nn

from f3eo.bench.methods import METHODS

PLAIN = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


class Quadratic:
    """L = ½ θᵀAθ + bᵀθ, the same for every sample; A dense, symmetric and positive."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(4, 4, generator=generator)
        self.a = root @ root.T / 4 + torch.eye(4)
        self.b = torch.randn(4, generator=generator)
        self.model = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.model.weight.copy_(torch.randn(1, 4, generator=generator))

    @property
    def theta(self):
        return self.model.weight[0].detach().clone()

    def closure(self, x, y):
        theta = self.model.weight[0]
        return (theta @ self.a @ theta / 2 + self.b @ theta).expand(len(y))

    def gradient(self, theta):
        return self.a @ theta + self.b

    def stepped(self, name, steps=1, **options):
        torch.manual_seed(0)
        stepper = METHODS[name].build(self.model, METHODS[name].options(options), 0)
        for _ in range(steps):
            stepper.step(self.closure, torch.zeros(2, 4), torch.zeros(2))
        return stepper
