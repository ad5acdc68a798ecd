"""Random small networks and shapes, batches of none and of one included, against a loop."""

import torch
import torch.nn.functional as F
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import nn

from dense import flat, relative, truth
from exact import ENGINES
from f3eo import DoubleBackward, FiniteDifference, PerSample
from f3eo.closure.problem import Problem

ACTIVATIONS = (nn.Tanh, nn.SiLU, nn.GELU, nn.Softplus, lambda: nn.ReLU(inplace=True))


@st.composite
def dense_network(draw):
    """Linear layers over any number of position dimensions, with norms between them."""
    width = draw(st.integers(1, 5))
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), width)
    layers = []
    for _ in range(draw(st.integers(0, 3))):
        new = draw(st.integers(1, 5))
        layers.append(nn.Linear(width, new, bias=draw(st.booleans())))
        width = new
        if draw(st.booleans()) and width > 1:
            layers.append(draw(st.sampled_from([nn.LayerNorm, nn.RMSNorm]))(width))
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
    return layers, shape, width * torch.Size(shape[:-1]).numel()


@st.composite
def convolutional_network(draw):
    """Convolutions of all settings, transposed ones too, with group norms between them."""
    dims = draw(st.integers(1, 2))
    channels = draw(st.integers(1, 3))
    shape = (channels, *(draw(st.integers(5, 7)) for _ in range(dims)))
    plain = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    transposed = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}[dims]
    layers = []
    for _ in range(draw(st.integers(1, 2))):
        groups = channels if draw(st.booleans()) else 1
        new = groups * draw(st.integers(1, 2))
        kind = draw(st.sampled_from([plain, transposed]))
        stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
        layers.append(
            kind(
                channels,
                new,
                draw(st.integers(1, 3)),
                stride=stride,
                padding=draw(st.integers(0, 1)),
                dilation=dilation,
                groups=groups,
                bias=draw(st.booleans()),
            )
        )
        channels = new
        if draw(st.booleans()):
            layers.append(nn.GroupNorm(draw(st.sampled_from([1, channels])), channels))
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
    layers.append({1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}[dims](2))
    return layers, shape, channels * 2**dims


@st.composite
def batches(draw):
    """Numbers of samples, none and one included."""
    return draw(st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(dense_network(), convolutional_network()),
    batches(),
    st.integers(0, 99),
    st.sampled_from([2**28, 1]),
)
def test_random_network(network, count, seed, memory):
    layers, shape, width = network
    torch.manual_seed(seed)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3)).double()
    x, y = torch.randn(count, *shape, dtype=torch.float64), torch.randint(3, (count,))
    try:
        model(torch.zeros(1, *shape, dtype=torch.float64))
    except (ValueError, RuntimeError):  # torch refuses: a kernel larger than the image, …
        reject()

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    parameters = list(model.parameters())
    problem = Problem(closure, (x, y), parameters, [True] * len(parameters), model)
    if count == 0:
        losses, trace = PerSample(DoubleBackward(), power=2).trace(problem)
        assert losses.shape == (0,) and float(trace.detach()) == 0
        return
    expected = truth(model, closure, x, y)
    scale = expected.gradients.norm() + 1e-12
    for engine, tolerance in ENGINES:
        found = PerSample(engine, memory=memory, power=2).gradients(problem)
        gradient = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(parameters, found.gradient, strict=True)
        ]
        assert (flat(gradient) - expected.gradient).norm() < 1e-10 * scale
        assert relative(found.trace, expected.trace) < 1e-9
        # A norm over values that hardly differ bends as 1/ε², and differences see the bend.
        allowed = 100 * tolerance if isinstance(engine, FiniteDifference) else tolerance
        assert (flat(found.structure) - expected.structure).norm() < allowed * (
            expected.structure.norm() + tolerance * scale
        )
