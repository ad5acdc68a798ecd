"""What only a GPU can show: half precision, flash attention, CUDA graphs, the cost of large models.

    python tests/gpu/run.py                         # on a GPU, some minutes
    python tests/gpu/run.py --device cpu --small    # the same paths without one

Prints a line for each check, and ends with 1 if one fails.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from f3eo import F3EO, Compiled, DoubleBackward, FiniteDifference, Fixed, PerSample
from f3eo.bench.models import MODELS
from f3eo.bench.models.gpt import GPT
from f3eo.bench.models.model import Model, images
from f3eo.bench.models.resnet import GROUPS, Block
from f3eo.cli.app import app


class Attention(nn.Module):
    """One head of attention with a classifier behind it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(width, 3 * width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, 4)."""
        query, key, value = (part.unsqueeze(1) for part in self.mix(x).chunk(3, -1))
        return self.head(F.scaled_dot_product_attention(query, key, value).squeeze(1).mean(1))


def made(device: str, small: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """A model of attention and a batch."""
    torch.manual_seed(0)
    width, count, length = (16, 4, 8) if small else (64, 32, 256)
    model = Attention(width)
    x, y = torch.randn(count, length, width), torch.randint(4, (count,))
    return model.to(device), x.to(device), y.to(device)


def measured(
    device: str,
    small: bool,
    estimator: Callable[[], PerSample | Compiled],
    dtype: torch.dtype = torch.float32,
    kernel: SDPBackend = SDPBackend.MATH,
    steps: int = 1,
) -> tuple[Tensor, Tensor]:
    """Tr F and the weights after some steps with h."""
    model, x, y = made(device, small)
    kept = [p.detach().clone() for p in model.parameters()]
    optimizer = F3EO(
        model, torch.optim.SGD, lr=0.1, estimator=estimator(), strength=Fixed(1.0), every=1
    )

    def closure(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(device, dtype, dtype != torch.float32):
            return F.cross_entropy(model(x).float(), y, reduction="none")

    with sdpa_kernel(kernel):
        for _ in range(steps):
            optimizer.step(closure, x, y)
    pairs = zip(model.parameters(), kept, strict=True)
    assert optimizer.trace is not None and optimizer.skipped == 0
    return optimizer.trace.cpu(), torch.cat([(p.detach() - k).flatten() for p, k in pairs]).cpu()


def near(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float) -> str:
    """The relative errors of trace and way, which must be below the tolerance."""
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]
    if not max(errors) < tolerance:
        raise AssertionError(f"errors {errors} of trace and way, allowed are {tolerance}")
    return f"errors {errors[0]:.1e} and {errors[1]:.1e}"


def precision(dtype: torch.dtype, device: str, small: bool) -> str:
    """Autocast to 16 bits beside float32."""
    return near(measured(device, small, PerSample, dtype), measured(device, small, PerSample), 0.05)


def fused(device: str, small: bool) -> str:
    """Differences through a kernel without a second derivative, beside double backward."""
    kernel = SDPBackend.FLASH_ATTENTION if device == "cpu" else SDPBackend.EFFICIENT_ATTENTION
    found = measured(device, small, partial(PerSample, FiniteDifference()), kernel=kernel)
    return near(found, measured(device, small, partial(PerSample, DoubleBackward())), 1e-3)


def flash(device: str, small: bool) -> str:
    """Flash attention in bf16, which is all that a GPU's takes; double backward stands in."""
    differences = partial(PerSample, FiniteDifference())
    found = measured(device, small, differences, torch.bfloat16, SDPBackend.FLASH_ATTENTION)
    return near(found, measured(device, small, PerSample), 0.05)


def graphs(device: str, small: bool) -> str:
    """`Compiled` by CUDA graphs, beside the estimator itself."""
    backend = None if device == "cpu" else "cudagraphs"
    found = measured(device, small, lambda: Compiled(backend=backend), steps=6)
    return near(found, measured(device, small, PerSample, steps=6), 1e-3)


def resnet18() -> nn.Module:
    """Two residual blocks of each width, for images of 32×32."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False)]
    layers += [nn.GroupNorm(GROUPS, 64), nn.ReLU()]
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def text(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random characters (B, 1024), and the next ones."""
    drawn = torch.randint(65, (samples, 1025), generator=generator)
    return drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()


LARGE = {
    "resnet18": Model("resnet18", "ResNet-18", 128, resnet18, images(3, 32, 32, classes=10)),
    "gpt2": Model("gpt2", "a body of GPT-2's size", 8, partial(GPT, 1024, 768, 12), text),
}


def cost(device: str, small: bool) -> str:
    """Rows of `f3eo cost`."""
    for command in ("cost", "methods"):  # of one command alone, tyro takes no name
        import_module(f"f3eo.cli.{command}")
    cast(dict[str, Model], MODELS).update(LARGE)
    names = ["mlp"] if small else list(LARGE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        words = [
            "cost",
            "--models",
            *names,
            "--methods",
            "default",
            "--rounds",
            "1" if small else "5",
        ]
        code = app.cli(args=[*words, "--no-memory", "--device", device, "--json", str(file)])
        rows = json.loads(file.read_bytes())
    if code or {row["model"] for row in rows} != set(names):
        raise AssertionError(f"f3eo cost ended with {code} and rows of {rows}")
    return "the table is above"


CHECKS: dict[str, Callable[[str, bool], str]] = {
    "bf16": partial(precision, torch.bfloat16),
    "fp16": partial(precision, torch.float16),
    "fused attention with differences": fused,
    "flash attention in bf16": flash,
    "CUDA graphs of Compiled": graphs,
    "cost": cost,
}


def main(*words: str) -> int:
    """Run all checks; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args(words)
    if torch.device(given.device).type != "cpu" and not torch.cuda.is_available():
        print("no CUDA here: --device cpu --small takes the same paths without it")
        return 1
    failed = 0
    for name, check in CHECKS.items():
        try:
            print(f"{name}: {check(given.device, given.small)}", flush=True)
        except Exception:
            failed = 1
            print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
