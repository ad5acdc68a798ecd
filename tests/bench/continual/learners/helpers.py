"""Two short stages of a small problem in float64, and a learner's run over them."""

import torch
from torch import nn
from torch.nn import functional as F

from f3eo.bench.continual.learners import PEERS

INPUTS, HIDDEN, CLASSES = 6, 8, 3
BATCH, STEPS = 8, 15
MEASURED = {"samples": 60}
FITTED = {
    "adamw": {"lr": 0.05},
    "agem": {"momentum": 0.8},
    "ewc": MEASURED,
    "ewc_batch": {**MEASURED, "strength": 10.0},
    "online_ewc": MEASURED,
    "stable_ewc": MEASURED,
    "f3eo_elastic": {"penalty": 0.5},
}
"""Options that suit so small a problem, beside a rate of 0.2."""


def small_model(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    return model.double()


def closure_of(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def stage_batches(stage, steps=STEPS):
    """Batches of stage 0, 1, …; each has a linear teacher of its own."""
    draw = torch.Generator().manual_seed(10 + stage)
    teacher = torch.randn(INPUTS, CLASSES, generator=draw, dtype=torch.float64)
    x = torch.randn(steps, BATCH, INPUTS, generator=draw, dtype=torch.float64)
    return [(part, (part @ teacher).argmax(1)) for part in x]


def options_of(name, **options):
    return PEERS[name].options({"lr": 0.2}, FITTED.get(name, {}), options)


def run_stages(name, seed=0, stages=2, steps=STEPS, **options):
    """A learner over the stages: the model, and the loss on the last stage before it and after."""
    model = small_model()
    closure, losses = closure_of(model), []
    learner = PEERS[name].build(model, options_of(name, **options), seed)
    for stage in range(stages):
        batches = stage_batches(stage, steps)
        losses = [mean_loss(model, batches)]
        learner.begin(stage, len(batches))
        for x, y in batches:
            loss = learner.step(closure, x, y)
            assert loss.shape == () and not loss.requires_grad and loss.isfinite()
        learner.end(closure, batches)
        losses.append(mean_loss(model, batches))
    return model, losses


def mean_loss(model, batches):
    model.eval()
    with torch.no_grad():
        loss = torch.stack([closure_of(model)(x, y).mean() for x, y in batches]).mean()
    model.train()
    return float(loss)


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
