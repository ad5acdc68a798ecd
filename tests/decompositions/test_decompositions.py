"""Every decomposition gives the results of torch's fused operation, states and masks included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pack_padded_sequence

from f3eo.decompositions import Decomposed


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tensors(result):
    """All tensors in a nested result."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result if part is not None for t in tensors(part)]


def assert_same(module, *args, **kwargs):
    expected = tensors(module(*args, **kwargs))
    with Decomposed(differentiable=True):
        found = tensors(module(*args, **kwargs))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14, check_dtype=True)


RECURRENT = [
    (nn.LSTM, {}),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    (nn.LSTM, {"bias": False, "batch_first": True}),
    (nn.LSTM, {"proj_size": 2, "num_layers": 2}),
    (nn.GRU, {}),
    (nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu", "num_layers": 2, "bias": False}),
]


@pytest.mark.parametrize(("kind", "options"), RECURRENT)
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers(kind, options, packed):
    module = kind(5, 3, **options).double()
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    if packed:
        x = x if options.get("batch_first") else x.transpose(0, 1)
        lengths = torch.tensor([3, 6, 1, 4])
        x = pack_padded_sequence(x, lengths, options.get("batch_first", False), False)
    assert_same(module, x)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_from_a_given_state(kind):
    module, x = kind(5, 3).double(), torch.randn(6, 4, 5, dtype=torch.float64)
    state = torch.randn(1, 4, 3, dtype=torch.float64)
    assert_same(module, x, (state, 2 * state) if kind is nn.LSTM else state)


def test_dropout_between_layers_draws_the_same_mask():
    module = nn.LSTM(5, 3, num_layers=2, dropout=0.5).double()
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    torch.manual_seed(1)
    expected = module(x)[0]
    torch.manual_seed(1)
    with Decomposed(differentiable=True):
        found = module(x)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_cells(kind, bias):
    assert_same(kind(5, 3, bias=bias).double(), torch.randn(4, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"kdim": 4, "vdim": 3},
        {"bias": False},
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"attn_mask": torch.ones(5, 7, dtype=torch.bool).triu(2)},
        {"attn_mask": torch.linspace(-1, 1, 210, dtype=torch.float64).view(6, 5, 7)},
        {"key_padding_mask": torch.tensor([[False] * 6 + [True]] * 3)},
        {"need_weights": False},
        {"average_attn_weights": False},
    ],
)
def test_multi_head_attention(options, call):
    module = nn.MultiheadAttention(6, 2, batch_first=True, **options).double()
    q = torch.randn(3, 5, 6, dtype=torch.float64)
    k = torch.randn(3, 7, options.get("kdim", 6), dtype=torch.float64)
    v = torch.randn(3, 7, options.get("vdim", 6), dtype=torch.float64)
    assert_same(module, q, k, v, **call)


def test_multi_head_attention_causal_and_without_batch():
    module = nn.MultiheadAttention(6, 2).double()
    x = torch.randn(5, 3, 6, dtype=torch.float64)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert_same(module, x, x, x, need_weights=False, attn_mask=mask, is_causal=True)
    assert_same(module, x[:, 0], x[:, 0], x[:, 0])


@pytest.mark.parametrize(
    "options", [{}, {"scale": 0.3}, {"enable_gqa": True}, {"dropout_p": 0.5}], ids=str
)
def test_attention_with_a_learned_bias(options):
    """One query may attend to nothing: zeros there, in torch and here."""
    heads = 1 if "enable_gqa" in options else 2
    q = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    k, v = torch.randn(2, 3, heads, 7, 4, dtype=torch.float64)
    bias = torch.randn(2, 5, 7, dtype=torch.float64)
    bias[0, 1] = -torch.inf
    bias[1, 2, 3:] = -torch.inf
    bias.requires_grad_()
    results = []
    for context in (sdpa_kernel(SDPBackend.MATH), Decomposed(differentiable=True)):
        torch.manual_seed(1)
        with context:
            out = F.scaled_dot_product_attention(q, k, v, bias, **options)
        results.append((out, *torch.autograd.grad(out.square().sum(), bias)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    assert not bool(results[1][0][:, 0, 1].any())


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 1])
def test_bags_of_embeddings(mode, padding):
    module = nn.EmbeddingBag(9, 4, mode=mode, padding_idx=padding).double()
    index = torch.randint(9, (12,))
    assert_same(module, index.view(3, 4))
    assert_same(module, index, torch.tensor([0, 3, 3, 8]))  # one bag is empty
    if mode == "sum":
        weights = torch.randn(3, 4, dtype=torch.float64)
        assert_same(module, index.view(3, 4), per_sample_weights=weights)


FUNCTIONS = {
    "silu": lambda x: F.silu(x),
    "gelu": lambda x: F.gelu(x),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "layer norm": lambda x: F.layer_norm(x, (4,), eps=0.1),
    "layer norm over two": lambda x: F.layer_norm(x, (3, 4)),
    "rms norm": lambda x: F.rms_norm(x, (4,), eps=0.1),
    "group norm": lambda x: F.group_norm(x.transpose(1, 2), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hand_written_second_derivatives(name):
    """Value, gradient, and both derivatives of the gradient equal torch's own."""
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    d = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 3, 4, dtype=torch.float64)

    def derivatives():
        y = FUNCTIONS[name](x)
        (dx,) = torch.autograd.grad(y, x, d.view(y.shape), create_graph=True)
        return y, dx, *torch.autograd.grad([dx, y], [x, d], [v, torch.ones_like(y)])

    expected = derivatives()
    with Decomposed(differentiable=True):
        found = derivatives()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_by_finite_differences(name):
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    with Decomposed(differentiable=True):
        assert torch.autograd.gradcheck(FUNCTIONS[name], x)
        assert torch.autograd.gradgradcheck(FUNCTIONS[name], x)


def test_affine_normalisations():
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    for module in (
        nn.LayerNorm((3, 5)),
        nn.LayerNorm(5, bias=False),
        nn.GroupNorm(2, 4),
        nn.RMSNorm(5),
        nn.RMSNorm((3, 5), eps=0.1),
    ):
        for p in module.double().parameters():
            nn.init.normal_(p)
        assert_same(module, x)


CONVOLUTIONS = [
    lambda: (nn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2), (2, 4, 7)),
    lambda: (nn.Conv2d(2, 3, (3, 2), padding="same", dilation=2), (2, 2, 5, 6)),
    lambda: (nn.Conv2d(2, 3, 2, stride=3, padding_mode="circular", padding=1), (2, 2, 5, 6)),
    lambda: (nn.Conv3d(1, 2, 2, bias=False), (2, 1, 3, 3, 3)),
    lambda: (nn.ConvTranspose1d(4, 4, 3, stride=2, groups=2, output_padding=1), (2, 4, 4)),
    lambda: (nn.ConvTranspose2d(2, 3, 2, dilation=2, padding=1), (2, 2, 4, 4)),
]


@pytest.mark.parametrize("make", CONVOLUTIONS)
def test_convolutions_and_their_second_derivatives(make):
    module, shape = make()
    module.double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    seeds = [torch.randn_like(p) for p in leaves]

    def derivatives():
        y = module(x).sin()
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return y, *first, *torch.autograd.grad(first, leaves, seeds)

    expected = derivatives()
    with Decomposed(differentiable=True):
        found = derivatives()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    assert_same(module, x[0])  # an input without a batch


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_norm_has_the_second_derivative_that_torch_has_not(dim):
    v = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    g = torch.rand_like(torch.norm_except_dim(v, 2, dim)).requires_grad_()

    def decomposed(v, g):
        with Decomposed(differentiable=True):
            return torch._weight_norm(v, g, dim)

    assert torch.equal(decomposed(v, g), torch._weight_norm(v, g, dim))
    assert torch.autograd.gradgradcheck(decomposed, (v, g))
