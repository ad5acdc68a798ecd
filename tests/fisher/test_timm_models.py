"""ResNet-18 and ViT-Tiny of timm, against the loop; needs the extra f3eo[timm], else skipped.

timm imports torchvision, whose wheels fit one build of torch alone; the same two architectures run
everywhere in test_real_models.py.
"""

import pytest
import torch
import torch.nn.functional as F

from exact import check

timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def resnet18(**options):
    """Its residual branches count from the start, where timm's default lets them begin at zero."""
    return timm.create_model("resnet18", num_classes=5, zero_init_last=False, **options)


MODELS = {
    "resnet18, frozen statistics": lambda: resnet18().eval(),
    "resnet18, group norm": lambda: resnet18(norm_layer="groupnorm"),
    "vit tiny": lambda: timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=32, patch_size=8, depth=2
    ),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_timm_models_are_exact(name, count):
    model = MODELS[name]()

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    check(model, closure, torch.randn(count, 3, 32, 32), torch.randint(5, (count,)))
