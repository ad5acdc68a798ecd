"""What is left of a trained model when its inputs or its weights are disturbed."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from f3eo.bench.run.prune import pruned
from f3eo.bench.run.quantise import quantised
from f3eo.bench.run.tested import Loss, tested
from f3eo.bench.run.weight_noise import noise_response
from f3eo.bench.tasks import Samples
from f3eo.bench.tasks.corruption import Corruption

SAMPLES, LABELS = 1_000, 10_000
"""Most test samples, and most labels on them, that are judged; bounds the time of a text, too."""
SEED = 0
"""Of corruptions and of weight noise, the same for every method and run."""
BITS, SHARES = (8, 4), (0.5, 0.8)


def robustness(
    model: nn.Module, loss: Loss, test: Samples, corruptions: Sequence[Corruption]
) -> dict[str, float | None]:
    """Accuracy and loss of a disturbed model on the first test samples, at most SAMPLES.

    Args:
        model: in evaluation mode; it is not changed.
        loss: see `f3eo.bench.run.tested.Loss`.
        test: test samples.
        corruptions: of the inputs (`f3eo.bench.tasks.corruption`); may be empty.

    Returns:
        `NAME_accuracy` in [0, 1] and `NAME_loss` in nats, where NAME is `clean`; `corrupted`, the
        mean over the corruptions, None without any; `int8` and `int4`, quantised weights;
        `pruned50` and `pruned80`, without 50 and 80 % of the weights. And
        `weight_noise_response`, see `f3eo.bench.run.weight_noise`. A value that is not finite is
        None.
    """
    part = first(test)
    weights = dict(model.named_parameters())

    def judge(weights: Mapping[str, Tensor], samples: Samples = part) -> tuple[float, float]:
        def predict(x: Tensor) -> Tensor:
            return torch.func.functional_call(model, dict(weights), (x,))

        found = tested(predict, loss, samples)
        return found.accuracy, found.loss

    drawn = torch.Generator(part.x.device).manual_seed(SEED)
    judged = {"clean": [judge(weights)]}
    judged["corrupted"] = [
        judge(weights, Samples(corrupt(part.x, drawn), part.y)) for corrupt in corruptions
    ]
    judged |= {f"int{bits}": [judge(quantised(weights, bits))] for bits in BITS}
    judged |= {f"pruned{round(100 * s)}": [judge(pruned(weights, s))] for s in SHARES}
    values: dict[str, float | None] = {}
    for name, pairs in judged.items():
        values[f"{name}_accuracy"] = fmean(a for a, _ in pairs) if pairs else None
        values[f"{name}_loss"] = fmean(loss for _, loss in pairs) if pairs else None
    drawn = torch.Generator(part.x.device).manual_seed(SEED)
    values["weight_noise_response"] = noise_response(lambda w: judge(w)[1], weights, drawn)
    return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}


def first(test: Samples) -> Samples:
    """The first test samples, at most SAMPLES of them and LABELS labels."""
    positions = test.y[0].numel()
    number = max(1, min(SAMPLES, LABELS // positions))
    return Samples(test.x[:number], test.y[:number])
