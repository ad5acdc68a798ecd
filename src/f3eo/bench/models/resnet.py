"""Residual networks for 32×32 images (arXiv 1512.03385), with GroupNorm in place of BatchNorm."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from f3eo.bench.models.model import Model, images

GROUPS = 8


class Block(nn.Module):
    """Two 3×3 convolutions plus a shortcut, a 1×1 convolution where the shape changes.

    Args:
        inputs, outputs: number of channels.
        stride: stride of the first convolution, in pixels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(GROUPS, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(GROUPS, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def build(blocks: int, stride: int = 1) -> nn.Module:
    """A network of 6 · blocks + 2 layers: `blocks` residual blocks of each width 16, 32 and 64.

    Args:
        blocks: number of residual blocks of each width.
        stride: stride of the first convolution, in pixels; default 1.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, stride, padding=1, bias=False),
        nn.GroupNorm(GROUPS, 16),
        nn.ReLU(),
    ]
    for inputs, outputs, step in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers.append(Block(inputs, outputs, step))
        layers.extend(Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


DATA = images(3, 32, 32, classes=10)
RESNET = Model("resnet", "ResNet-8, GroupNorm, 32×32 images", 64, partial(build, 1), DATA)
RESNET20 = Model("resnet20", "ResNet-20, GroupNorm, 32×32 images", 64, partial(build, 3), DATA)
