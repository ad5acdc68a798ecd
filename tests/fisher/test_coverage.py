"""Layers of every kind, one row each: value and gradient of the exact trace, rule or fallback."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from dense import flat, relative, truth
from f3eo import PerSample
from f3eo.evaluation import Problem


class Apply(nn.Module):
    """A layer with what its call takes besides."""

    def __init__(self, layer, call):
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, x):
        return self.call(self.layer, x)


def first(layer, x):
    return layer(x)[0]


def sequence_first(layer, x):
    return layer(x.transpose(0, 1))[0].transpose(0, 1)


def attend(layer, x):
    return layer(x, x, x)[0]


def attend_sequence_first(layer, x):
    x = x.transpose(0, 1)
    return layer(x, x, x, need_weights=False)[0].transpose(0, 1)


class Custom(nn.Module):
    """Bare parameters in all kinds of operations."""

    def __init__(self):
        super().__init__()
        self.heads = nn.Parameter(torch.randn(2, 6, 3))
        self.bias = nn.Parameter(torch.randn(3))
        self.floor = nn.Parameter(torch.randn(5, 6))
        self.down = nn.Parameter(torch.randn(6, 2))
        self.up = nn.Parameter(torch.randn(2, 6))
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        x = torch.where(x > 0, x, self.floor) * self.gain.exp()
        x = x + x @ (self.down @ self.up)
        z = torch.einsum("btd,hdk->bhtk", x, self.heads) + self.bias
        z[:, 0] = z[:, 0] * 2
        return torch.cat([z.flatten(2), self.bias.expand(len(x), 2, 3)], 2)


class Tokens(nn.Module):
    """Class tokens by expand, repeat and assignment."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.slot = nn.Parameter(torch.randn(6))

    def forward(self, x):
        x = x.clone()
        x[:, 1] = self.slot
        return torch.cat(
            [self.token.repeat(len(x), 1, 1), x, self.token.expand(x.shape[0], 2, 6)], 1
        )


class LoRA(nn.Module):
    """A frozen layer with a low-rank adapter."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(6, 4).requires_grad_(False)
        self.down = nn.Linear(6, 2, bias=False)
        self.up = nn.Linear(2, 4, bias=False)

    def forward(self, x):
        return self.base(x) + 0.5 * self.up(self.down(x))


class Recurrence(nn.Module):
    """A loop of one's own from a zero state."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 3)
        self.again = nn.Linear(3, 3)

    def forward(self, x):
        h = torch.zeros(len(x), 3, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = torch.tanh(self.into(x[:, t]) + self.again(h))
        return h


SEQUENCE, IMAGE, VOLUME, LINE = (4, 5, 6), (4, 2, 5, 5), (4, 2, 5, 5, 5), (4, 4, 7)
LAYERS = {
    "lstm": (lambda: nn.LSTM(6, 3, 2, batch_first=True, bidirectional=True), SEQUENCE, first),
    "lstm sequence first": (lambda: nn.LSTM(6, 3), SEQUENCE, sequence_first),
    "gru": (lambda: nn.GRU(6, 3, batch_first=True), SEQUENCE, first),
    "rnn": (lambda: nn.RNN(6, 3, batch_first=True, bias=False), SEQUENCE, first),
    "lstm cell": (lambda: nn.LSTMCell(6, 3), (4, 6), first),
    "gru cell": (lambda: nn.GRUCell(6, 3), (4, 6), None),
    "attention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True), SEQUENCE, attend),
    "attention sequence first": (
        lambda: nn.MultiheadAttention(6, 2),
        SEQUENCE,
        attend_sequence_first,
    ),
    "attention with bias_kv": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True, add_bias_kv=True),
        SEQUENCE,
        attend,
    ),
    "transformer encoder": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
        SEQUENCE,
        None,
    ),
    "transformer decoder": (
        lambda: nn.TransformerDecoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
        SEQUENCE,
        lambda layer, x: layer(x, x),
    ),
    "rms norm": (lambda: nn.RMSNorm(6), SEQUENCE, None),
    "layer norm over two dimensions": (lambda: nn.LayerNorm((5, 6)), SEQUENCE, None),
    "instance norm": (lambda: nn.InstanceNorm1d(5, affine=True), SEQUENCE, None),
    "instance norm, running": (
        lambda: nn.InstanceNorm1d(5, affine=True, track_running_stats=True),
        SEQUENCE,
        None,
    ),
    "frozen batch norm": (lambda: nn.BatchNorm1d(5).eval(), SEQUENCE, None),
    "conv 2d dilated, no reach": (
        lambda: nn.Conv2d(2, 3, 2, stride=3, dilation=2, padding=1),
        IMAGE,
        None,
    ),
    "conv 3d": (lambda: nn.Conv3d(2, 3, 3, padding=1, padding_mode="reflect"), VOLUME, None),
    "conv 1d same": (lambda: nn.Conv1d(4, 6, 4, padding="same", groups=2), LINE, None),
    "transposed conv 1d": (lambda: nn.ConvTranspose1d(4, 4, 3, stride=2, groups=2), LINE, None),
    "transposed conv 2d": (
        lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1),
        IMAGE,
        None,
    ),
    "transposed conv 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), VOLUME, None),
    "bilinear": (lambda: nn.Bilinear(6, 6, 3), SEQUENCE, lambda layer, x: layer(x, x)),
    "prelu": (lambda: nn.PReLU(5), SEQUENCE, None),
    "weight norm on conv": (
        lambda: parametrizations.weight_norm(nn.Conv1d(4, 3, 3)),
        LINE,
        None,
    ),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), SEQUENCE, None),
    "spectral norm, frozen": (
        lambda: parametrizations.spectral_norm(nn.Linear(6, 3)).eval(),
        SEQUENCE,
        None,
    ),
    "bare parameters": (Custom, SEQUENCE, None),
    "tokens": (Tokens, SEQUENCE, None),
    "lora": (LoRA, SEQUENCE, None),
    "recurrence of one's own": (Recurrence, SEQUENCE, None),
}


def compare(model, x, seed=0):
    """Assert gradient, trace and structure gradient of a classifier around the layer."""
    with torch.no_grad():
        width = model(x).flatten(1).shape[1]
    head = nn.Linear(width, 3)
    whole = nn.Sequential(model, nn.Flatten(), head)
    y = torch.randint(3, (len(x),))

    def closure(x, y):
        return F.cross_entropy(whole(x), y, reduction="none")

    parameters = [p for p in whole.parameters() if p.requires_grad]
    expected = truth(whole, closure, x, y)
    found = PerSample().gradients(
        Problem(closure, (x, y), parameters, [True] * len(parameters), whole)
    )
    gradient = [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(parameters, found.gradient, strict=True)
    ]
    assert relative(flat(gradient), expected.gradient) < 1e-10
    assert relative(found.trace, expected.trace) < 1e-10
    assert relative(flat(found.structure), expected.structure) < 1e-10


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:Using padding=.same")
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, shape, call = LAYERS[name]
    layer = make()
    compare(Apply(layer, call) if call else layer, torch.randn(shape))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bag_of_embeddings(mode):
    """torch has no second derivative of a bag: the truth is the same model without one."""
    bag = nn.EmbeddingBag(9, 4, mode=mode)
    index = torch.randint(9, (5, 3))
    y = torch.randint(4, (5,))

    def bagged(i, y):
        return F.cross_entropy(bag(i), y, reduction="none")

    def written_out(i, y):
        rows = F.embedding(i, bag.weight)
        return F.cross_entropy(getattr(rows, mode)(1), y, reduction="none")

    expected = truth(bag, written_out, index, y)
    found = PerSample().gradients(Problem(bagged, (index, y), [bag.weight], [True], bag))
    assert relative(found.trace, expected.trace) < 1e-10
    assert relative(flat(found.structure), expected.structure) < 1e-10


class Autocast(nn.Module):
    """Convolution, norms, activation, linear under bfloat16 autocast."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.LayerNorm(5)
        )
        self.head = nn.Linear(100, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.head(self.body(x).flatten(1)).float()


def test_bfloat16_autocast_has_the_trace_of_single_precision_to_its_rounding():
    torch.set_default_dtype(torch.float32)
    model, x, y = Autocast(), torch.randn(6, 2, 9, 9), torch.randint(3, (6,))

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    def precise(x, y):
        z = model.head(model.body(x).flatten(1))
        return F.cross_entropy(z, y, reduction="none")

    parameters = list(model.parameters())
    found = PerSample().gradients(
        Problem(closure, (x, y), parameters, [True] * len(parameters), model)
    )
    expected = truth(model, precise, x, y)
    assert relative(found.trace, expected.trace) < 0.05
    assert relative(flat(found.gradient), expected.gradient) < 0.05
    assert relative(flat(found.structure), expected.structure) < 0.1
