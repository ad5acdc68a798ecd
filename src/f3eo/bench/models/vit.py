"""A vision transformer (arXiv 2010.11929) for 32×32 images."""

import torch
from torch import Tensor, nn

from f3eo.bench.models.model import Model, images
from f3eo.bench.models.transformer import Block

SIZE, PATCH, WIDTH, HEADS, DEPTH, CLASSES = 32, 4, 96, 3, 4, 10


class ViT(nn.Module):
    """Transformer on a class token and patches; token and positions are bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (SIZE // PATCH) ** 2 + 1, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, causal=False) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, SIZE, SIZE) -> logits (B, CLASSES)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x)[:, 0]))


VIT = Model(
    "vit",
    f"ViT, {DEPTH} layers of {WIDTH}, patches of {PATCH}×{PATCH}",
    32,
    ViT,
    images(3, SIZE, SIZE, classes=CLASSES),
)
