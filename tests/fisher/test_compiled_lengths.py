"""Compiled models of language: masks, dropout, and one recording for samples of all lengths."""

import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from dense import relative
from f3eo import F3EO, Compiled, PerSample, Weighted
from f3eo.closure.problem import Problem

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|Deprecated).*")
SAMPLES = 3


def bert(dropout):
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_labels": 3}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 48}
    drop = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    model = BertForSequenceClassification(BertConfig(**sizes, **layers, **drop)).double().train()

    def losses(ids, mask, labels):
        logits = model(input_ids=ids, attention_mask=mask).logits
        return F.cross_entropy(logits, labels, reduction="none")

    def batch(length, draw):
        lengths = torch.randint(2, length + 1, (SAMPLES,), generator=draw)
        mask = torch.arange(length) < lengths[:, None]
        labels = torch.randint(3, (SAMPLES,), generator=draw)
        return torch.randint(20, (SAMPLES, length), generator=draw), mask.long(), labels

    return model, losses, batch


def gpt(dropout):
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes = {"vocab_size": 20, "n_positions": 48, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**sizes, **drop, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).double().train()

    def losses(ids, labels):
        logits = model(input_ids=ids, use_cache=False).logits
        found = F.cross_entropy(logits.mT, labels, reduction="none", ignore_index=-100)
        return Weighted(found, (labels != -100).to(found))

    def batch(length, draw):
        ids = torch.randint(20, (SAMPLES, length), generator=draw)
        labels = torch.randint(20, (SAMPLES, length), generator=draw)
        return ids, labels.where(torch.rand(labels.shape, generator=draw) < 0.7, -100)

    return model, losses, batch


def made(build, dropout):
    torch.manual_seed(0)
    model, losses, batch = build(dropout)
    parameters = list(model.parameters())

    def asked(length, seed):
        given = batch(length, torch.Generator().manual_seed(seed))
        return Problem(losses, given, parameters, [True] * len(parameters), model)

    return asked


def truth(asked, seed):
    """∇L, h = ∇ Σ ω_i ‖∇ℓ_i‖ and Tr F by autograd, with the random numbers of the seed."""
    torch.manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):
        losses = asked.closure(*asked.batch)
    if isinstance(losses, Weighted):
        losses, weights = losses.per_sample()
        shares = weights / weights.sum()
    else:
        shares = torch.full_like(losses, 1 / len(losses))
    of, filled = asked.parameters, {"allow_unused": True, "materialize_grads": True}
    rows = [torch.autograd.grad(one, of, create_graph=True, **filled) for one in losses]
    squared = torch.stack([sum(g.square().sum() for g in row) for row in rows])
    structure = torch.autograd.grad((shares * squared.sqrt()).sum(), of, retain_graph=True)
    gradient = torch.autograd.grad((shares * losses).sum(), of, **filled)
    return vector(gradient), vector(structure), float((shares * squared).sum().detach())


def vector(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def assert_true(found, asked, seed):
    gradient, structure, trace = truth(asked, seed)
    filled = [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(asked.parameters, found.gradient, strict=True)
    ]
    assert relative(vector(filled), gradient) < 1e-10
    assert relative(vector(found.structure), structure) < 1e-5
    assert float(found.trace) == pytest.approx(trace, rel=1e-9)


@pytest.mark.parametrize(("build", "dropout"), [(bert, 0.0), (gpt, 0.2)], ids=["bert", "gpt"])
def test_twenty_lengths_are_compiled_once_and_equal_the_dense_truth(build, dropout):
    torch._dynamo.reset()
    counter, asked = CompileCounterWithBackend("eager"), made(build, dropout)
    compiled = Compiled(PerSample(), backend=counter)  # pyright: ignore[reportArgumentType]
    lengths = [12, *(3 + 11 * k % 38 for k in range(20))]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Compiled runs a step")
        for seed, length in enumerate(lengths):
            batch = asked(length, seed)
            torch.manual_seed(seed)
            found = compiled.gradients(batch)
            if seed in (1, 3, 6, 10, 20):  # after 1 the graph's own numbers
                assert_true(found, batch, seed)
    assert counter.frame_count == 1
    (alike,) = compiled._lengths.values()
    assert [recording.uses for recording in alike.recordings] == [20]


def test_a_step_draws_and_ends_as_it_does_uncompiled():
    ends = []
    for compiled in (False, True):
        asked = made(gpt, 0.2)
        problem = asked(9, 0)
        estimator = Compiled(PerSample(), backend=None) if compiled else PerSample()
        optimizer = F3EO(
            problem.model,
            torch.optim.SGD,
            lr=0.1,
            estimator=estimator,
            every=2,
            generator=torch.Generator().manual_seed(1),
        )
        torch.manual_seed(2)
        for step in range(9):
            optimizer.step(problem.closure, *asked(5 + step % 4, step).batch)
        ends.append((vector(problem.parameters), torch.get_rng_state()))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=0, atol=1e-8)
    assert torch.equal(ends[1][1], ends[0][1])


class Branching(nn.Module):
    """Does something else with more than eight positions."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, ids):
        values = self.head(self.embedding(ids).tanh())
        return values.mean(1) if ids.shape[1] > 8 else values.sum(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)
        self.cell = nn.LSTM(6, 6, batch_first=True)

    def forward(self, ids):
        return self.head(self.cell(self.embedding(ids))[0][:, -1])


class Counting(Branching):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, ids):
        self.count += 1
        return super().forward(ids)


def classifier(kind):
    def build(dropout):
        model = kind().double()

        def losses(ids, labels):
            return F.cross_entropy(model(ids), labels, reduction="none")

        def batch(length, draw):
            ids = torch.randint(20, (SAMPLES, length), generator=draw)
            return ids, torch.randint(3, (SAMPLES,), generator=draw)

        return model, losses, batch

    return made(build, 0.0)


def test_lengths_at_which_the_closure_branches_have_recordings_of_their_own():
    asked = classifier(Branching)
    compiled = Compiled(PerSample(), backend=None)
    for seed, length in enumerate([12, 9, 8, 5, 10, 7, 1, 6, 1, 1, 2, 30]):
        batch = asked(length, seed)
        assert_true(compiled.gradients(batch), batch, seed)
    (alike,) = compiled._lengths.values()
    assert [recording.uses for recording in alike.recordings] == [3, 5]
    assert len(compiled._kinds) == 2  # the first batch, and one position: that is no symbol


@pytest.mark.parametrize(
    ("kind", "says"), [(Recurrent, "a recording each"), (Counting, "writes into buffers")]
)
def test_where_no_recording_holds_for_all_lengths_each_has_its_own_or_none(kind, says):
    asked = classifier(kind)
    compiled = Compiled(PerSample(), backend=None)
    with pytest.warns(UserWarning, match=says):
        for seed, length in enumerate([6, 4, 6, 4, 6, 4]):
            batch = asked(length, seed)
            before = float(getattr(batch.model, "count", 0))
            found = compiled.gradients(batch)
            assert kind is Recurrent or float(batch.model.count) == before + 1
            assert_true(found, batch, seed)
    assert [r.graph is not None for r in compiled._kinds.values()] == [kind is Recurrent] * 2
