import copy

import pytest
import torch
from torch import nn

from f3eo.bench.continual.streams.scores import correct, squared_error
from f3eo.bench.continual.unseen import adapt, few, mean
from f3eo.bench.tasks import Data, Samples
from f3eo.bench.tasks.task import cross_entropy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(train: int = 33, test: int = 40) -> Data:
    x = torch.randn(train + test, 4, generator=generator(9))
    y = (x @ torch.randn(4, 3, generator=generator(8))).argmax(1)
    return Data(Samples(x[:train], y[:train]), Samples(x[train:], y[train:]))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def by_hand(model: nn.Module, samples: Samples, test: Samples, lr: float, drawn) -> list[float]:
    """The scores before each of the batches that `drawn` names, and after the last."""
    model, scores = copy.deepcopy(model), []
    for chosen in (*drawn, None):
        scores.append((model(test.x).argmax(1) == test.y).float().mean().item())
        if chosen is not None:
            losses = cross_entropy(model(samples.x[chosen]), samples.y[chosen])
            gradients = torch.autograd.grad(losses.mean(), list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= lr * gradient
    return scores


def test_it_is_plain_sgd_on_batches_without_replacement():
    model, data = network(), made()
    draw = generator()
    passes = [torch.randperm(33, generator=draw) for _ in range(2)]
    drawn = [order[start : start + 10] for order in passes for start in (0, 10, 20)]
    expected = by_hand(model, data.train, data.test, 0.5, drawn)
    scores = adapt(
        model, cross_entropy, correct, data, lr=0.5, steps=(0, 1, 4, 6), generator=generator()
    )
    assert scores == pytest.approx([expected[count] for count in (0, 1, 4, 6)])
    assert len(set(scores)) > 1


def test_the_model_and_torchs_random_state_stay():
    model = nn.Sequential(network(), nn.Dropout(0.5)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first, second = (
        adapt(model, cross_entropy, correct, made(), lr=0.5, generator=generator())
        for _ in range(2)
    )
    assert first == second and len(first) == 4  # dropout would draw
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and model[1].training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_few_samples_of_each_class_make_full_batches():
    model, data = network(), made()
    draw = generator()
    chosen = few(data.train, 2, draw)
    drawn = [torch.randperm(6, generator=draw) for _ in range(5)]
    expected = by_hand(model, chosen, data.test, 0.3, drawn)
    scores = adapt(
        model, cross_entropy, correct, data, lr=0.3, steps=(0, 5), shots=2, generator=generator()
    )
    assert scores == pytest.approx([expected[0], expected[5]])


def test_few_takes_as_many_of_each_class_and_all_of_a_rare_one():
    y = torch.tensor([4] * 30 + [7] * 30 + [9])
    x = torch.arange(61.0)[:, None]
    chosen = few(Samples(x, y), 5, generator())
    assert sorted(chosen.y.tolist()) == [4] * 5 + [7] * 5 + [9]
    assert torch.equal(y[chosen.x.flatten().long()], chosen.y)
    assert len(set(chosen.x.flatten().tolist())) == 11
    other = few(Samples(x, y), 5, generator(1))
    assert not torch.equal(chosen.x, other.x)


@pytest.mark.parametrize("y", [torch.randn(50, 1), torch.zeros(50, 6, dtype=torch.int64)])
def test_few_takes_as_many_of_all_where_there_are_no_classes(y):
    chosen = few(Samples(torch.arange(50.0)[:, None], y), 5, generator())
    assert len(chosen.y) == len(chosen.x.unique()) == 5
    assert torch.equal(y[chosen.x.flatten().long()], chosen.y)


def test_regression_adapts_by_its_own_loss_and_score():
    x = torch.randn(60, 1, generator=generator())
    data = Data(Samples(x[:30], 2 * x[:30]), Samples(x[30:], 2 * x[30:]))
    scores = adapt(
        nn.Linear(1, 1), squared_error, squared_error, data, lr=0.05, generator=generator()
    )
    assert scores == sorted(scores, reverse=True) and scores[-1] < 0.5 * scores[0]


def test_the_mean_does_not_depend_on_its_chunks(monkeypatch):
    model, test = network(), made(test=1_001).test
    expected = (model(test.x).argmax(1) == test.y).float().mean().item()
    assert mean(model, correct, test) == pytest.approx(expected)
    monkeypatch.setattr("f3eo.bench.continual.unseen.CHUNK", 7)
    assert mean(model, correct, test) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0 and finite, received 0"),
        ({"lr": float("nan")}, "lr must be above 0 and finite, received nan"),
        ({"shots": 0}, "shots must be above 0 and finite, received 0"),
        ({"batch": -1}, "batch must be above 0 and finite, received -1"),
        ({"steps": (0, 5, 1)}, r"steps must not fall and not be negative, received \(0, 5, 1\)"),
        ({"steps": (-1, 5)}, r"steps must not fall and not be negative, received \(-1, 5\)"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        adapt(
            network(),
            cross_entropy,
            correct,
            made(),
            **({"lr": 0.1, "generator": generator()} | wrong),
        )
