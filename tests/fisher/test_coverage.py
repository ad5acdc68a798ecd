"""Layers of every kind, one row each: value and gradient of the exact trace, rule or fallback."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from dense import flat, relative, truth
from exact import check
from f3eo import DoubleBackward, PerSample, fisher_trace
from f3eo.closure.problem import Problem


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


class Repeated(nn.Module):
    """Tables that are the same for every sample: of segments, and of positions for every head."""

    def __init__(self):
        super().__init__()
        self.segments = nn.Embedding(2, 6)
        self.places = nn.Parameter(torch.randn(2, 5, 3))
        self.register_buffer("segment", torch.tensor([[0, 0, 1, 1, 1]]))

    def forward(self, x):
        batch = len(x)
        x = x + self.segments(self.segment.expand(batch, -1))
        heads = x.unflatten(-1, (2, 3)).transpose(1, 2).flatten(0, 1)  # (2B, T, 3)
        return (heads @ self.places.repeat(batch, 1, 1).mT).unflatten(0, (batch, 2))


class RelativePositions(nn.Module):
    """A learned bias in torch's own attention, some of it masked."""

    def __init__(self):
        super().__init__()
        self.pack = nn.Linear(6, 18)
        self.bias = nn.Embedding(9, 2)
        place = torch.arange(5)
        self.register_buffer("distance", place[:, None] - place + 4)

    def forward(self, x):
        q, k, v = self.pack(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        bias = self.bias(self.distance).permute(2, 0, 1)
        bias = bias.masked_fill(self.distance > 6, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, bias)


class ManyTimes(nn.Module):
    """Modules of several kinds that are called twice, a convolution's weight tied to a linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(5, 5, 3, padding=1)
        self.norm = nn.GroupNorm(5, 5)
        self.linear = nn.Linear(5, 5)
        self.scale = nn.Parameter(torch.randn(5, 1))

    def forward(self, x):
        for _ in range(2):
            x = torch.tanh(self.norm(self.conv(x))) * self.scale
        weight = self.linear.weight.unsqueeze(-1)
        return self.linear(F.conv1d(x, weight).mT) + self.scale.mT


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


def frozen(norm):
    """Statistics of other data than what follows, scales and shifts that matter."""
    for tensor in (norm.running_var, norm.weight.data):
        nn.init.uniform_(tensor, 0.5, 2.0)
    for tensor in (norm.running_mean, norm.bias.data):
        nn.init.normal_(tensor)
    return norm.eval()


SEQUENCE, IMAGE, VOLUME, LINE = (4, 5, 6), (4, 2, 5, 5), (4, 2, 5, 5, 5), (4, 4, 7)
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def convolution(dims, mode):
    """Every setting at once, and a channel to a group."""
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "padding_mode": mode}
    return lambda: CONVOLUTIONS[dims](4, 6, 2, **options), (3, 4, *[5] * dims), None


def transposed(dims):
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "output_padding": 1}
    return lambda: TRANSPOSED[dims](4, 6, 2, **options), (3, 4, *[3] * dims), None


def recurrent(kind, batch_first):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
    return lambda: kind(6, 3, **options), SEQUENCE, first if batch_first else sequence_first


LAYERS = {
    "linear": (lambda: nn.Linear(6, 3), (4, 6), None),
    "linear, positions": (lambda: nn.Linear(6, 3), SEQUENCE, None),
    "linear, two dimensions of positions": (lambda: nn.Linear(5, 3), IMAGE, None),
    **{
        f"conv {dims}d, {mode}": convolution(dims, mode)
        for dims, mode in product(CONVOLUTIONS, ["zeros", "reflect", "replicate", "circular"])
    },
    **{f"transposed conv {dims}d, all settings": transposed(dims) for dims in TRANSPOSED},
    **{
        f"{kind.__name__}, two layers both ways, batch_first={order}": recurrent(kind, order)
        for kind, order in product([nn.RNN, nn.GRU, nn.LSTM], [True, False])
    },
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
    "attention, causal": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True, bias=False),
        SEQUENCE,
        lambda layer, x: layer(x, x, x, attn_mask=torch.ones(5, 5).bool().triu(1))[0],
    ),
    "attention, keys and values of other widths": (
        lambda: nn.MultiheadAttention(6, 2, kdim=4, vdim=3, batch_first=True),
        SEQUENCE,
        lambda layer, x: layer(x, x[..., :4], x[..., 3:])[0],
    ),
    "attention with a learned bias": (RelativePositions, SEQUENCE, None),
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
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), SEQUENCE, None),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 4, 3, 3), None),
    "group norm, no positions": (lambda: nn.GroupNorm(2, 6), (4, 6), None),
    "instance norm 2d": (lambda: nn.InstanceNorm2d(2, affine=True), IMAGE, None),
    "instance norm": (lambda: nn.InstanceNorm1d(5, affine=True), SEQUENCE, None),
    "instance norm, running": (
        lambda: nn.InstanceNorm1d(5, affine=True, track_running_stats=True),
        SEQUENCE,
        None,
    ),
    "frozen batch norm": (lambda: frozen(nn.BatchNorm1d(5)), SEQUENCE, None),
    "frozen batch norm 2d": (lambda: frozen(nn.BatchNorm2d(2)), IMAGE, None),
    "frozen instance norm": (
        lambda: frozen(nn.InstanceNorm1d(5, affine=True, track_running_stats=True)),
        SEQUENCE,
        None,
    ),
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
    "tables repeated": (Repeated, SEQUENCE, None),
    "called twice and tied": (ManyTimes, SEQUENCE, None),
    "weights and biases partly frozen": (
        lambda: nn.Sequential(nn.Linear(6, 6).requires_grad_(False), nn.Conv1d(5, 4, 3)),
        SEQUENCE,
        None,
    ),
    "lora": (LoRA, SEQUENCE, None),
    "recurrence of one's own": (Recurrence, SEQUENCE, None),
}


def classifier(layer, x):
    """The layer under a linear head, and its closure."""
    with torch.no_grad():
        width = layer(x).flatten(1).shape[1]
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(width, 3))
    return model, lambda x, y: F.cross_entropy(model(x), y, reduction="none")


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:Using padding=.same")
@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, count):
    make, shape, call = LAYERS[name]
    if not count and "instance norm" in name:
        pytest.skip("torch normalises no instances at all: IndexError")
    layer = make()
    x, y = torch.randn(shape)[:count], torch.randint(3, (min(count, shape[0]),))
    model, closure = classifier(Apply(layer, call) if call else layer, torch.randn(shape))
    if count:
        check(model, closure, x, y)
    else:
        losses, trace = fisher_trace(model, closure, x, y)
        assert losses.shape == (0,) and float(trace.detach()) == 0


class Distances(nn.Module):
    """Distances of positions from a row of them repeated, which no sample has a part in."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 6)

    def forward(self, x):
        place = torch.arange(5).unsqueeze(0).expand(5, 5)
        return torch.einsum("btd,tsd->bts", x, self.table(place - place.T + 4))


def test_constants_repeated_as_often_as_there_are_samples_are_no_silent_error():
    model, closure = classifier(Distances(), torch.randn(SEQUENCE))
    check(model, closure, torch.randn(SEQUENCE), torch.randint(3, (4,)))
    with pytest.raises(ValueError, match=r"mixes the 5 samples.*take another batch size"):
        check(model, closure, torch.randn(5, 5, 6), torch.randint(3, (5,)))


def test_attention_ignores_padded_keys():
    layer = nn.MultiheadAttention(6, 2, batch_first=True)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [1], [4]])
    check(
        layer,
        lambda x, hidden: layer(x, x, x, key_padding_mask=hidden)[0].square().sum((1, 2)),
        torch.randn(SEQUENCE),
        padding,
    )


@pytest.mark.parametrize("memory", [2**28, 1])
@pytest.mark.parametrize("count", [1, 5])
def test_embedding_with_padding(count, memory):
    """The index of the padding and repeated ones occur in the batch."""
    layer = nn.Embedding(4, 3, padding_idx=1)
    with torch.no_grad():
        layer.weight[1] = 1.0  # a vector like any other, only that it is not trained
    index = torch.randint(4, (5, 6))[:count]
    assert (index == 1).any()
    check(layer, lambda i: layer(i).sum(1).tanh().square().sum(1), index, memory=memory)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_frequencies_in_the_batch_are_refused(kind):
    """scale_grad_by_freq divides by how often an index occurs among all samples."""
    layer = kind(4, 3, scale_grad_by_freq=True)
    with pytest.raises(ValueError, match="scale_grad_by_freq=True has no per-sample gradient"):
        fisher_trace(layer, lambda i: layer(i).square().flatten(1).sum(1), torch.ones(2, 3).long())


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("count", [1, 5])
def test_bag_of_embeddings(count, mode, padding):
    """torch has no second derivative of a bag: the truth is the same model without one."""
    bag = nn.EmbeddingBag(9, 4, mode=mode, padding_idx=padding)
    index, y = torch.randint(9, (5, 3))[:count], torch.randint(4, (count,))

    def bagged(i, y):
        return F.cross_entropy(bag(i), y, reduction="none")

    def written_out(i, y):
        rows = bag.weight[i[0] if padding is None else i[0][i[0] != padding]]
        pooled = rows.amax(0) if mode == "max" else getattr(rows, mode)(0)
        return F.cross_entropy(pooled.unsqueeze(0), y, reduction="none")

    check(bag, bagged, index, y, written_out=written_out)


def test_weighted_bag_of_embeddings():
    bag = nn.EmbeddingBag(9, 4, mode="sum")

    def bagged(i, weights):
        return bag(i, per_sample_weights=weights).tanh().square().sum(1)

    def written_out(i, weights):
        return (bag.weight[i] * weights.unsqueeze(-1)).sum(1).tanh().square().sum(1)

    check(bag, bagged, torch.randint(9, (5, 3)), torch.randn(5, 3), written_out=written_out)


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
    found = PerSample(DoubleBackward(), power=2).gradients(
        Problem(closure, (x, y), parameters, [True] * len(parameters), model)
    )
    expected = truth(model, precise, x, y)
    assert relative(found.trace, expected.trace) < 0.05
    assert relative(flat(found.gradient), expected.gradient) < 0.05
    assert relative(flat(found.structure), expected.structure) < 0.1
