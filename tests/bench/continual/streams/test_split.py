import pytest
import torch

from f3eo.bench.continual.streams.heads import coded, head_correct, head_loss, own_head
from f3eo.bench.continual.streams.images import mnist
from f3eo.bench.continual.streams.split import CLASS, DOMAIN, TASK
from f3eo.bench.tasks.task import cross_entropy


def logits(samples: int = 12, outputs: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, outputs, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("stream", [CLASS, TASK], ids=lambda s: s.name)
def test_pairs_are_disjoint_and_cover_all_digits(stream, small_data):
    for part, name in ((0, "train"), (1, "t10k")):
        labels = [stage.load()[part].y for stage in stream.stages(0)]
        assert [sorted(set(y.tolist())) for y in labels] == [[2 * t, 2 * t + 1] for t in range(5)]
        assert torch.equal(torch.cat(labels).bincount(), mnist(name).y.bincount())


def test_in_the_domain_scenario_a_label_is_the_place_in_its_pair(small_data):
    for by_place, by_digit in zip(DOMAIN.stages(0), CLASS.stages(0), strict=True):
        first, second = by_place.load().train, by_digit.load().train
        assert torch.equal(first.x, second.x) and torch.equal(first.y, second.y % 2)


@pytest.mark.parametrize(("classes", "heads"), [(2, 5), (3, 2), (1, 4)])
def test_coded_labels_go_to_their_head_and_back(classes, heads):
    outputs = logits(classes, classes * heads)
    labels = torch.arange(classes)
    for stage in range(heads):
        own, decoded = own_head(outputs, coded(labels, stage, classes), classes)
        assert torch.equal(decoded, labels)
        assert torch.equal(own, outputs[:, stage * classes : (stage + 1) * classes])


def test_loss_and_score_of_mixed_heads_are_those_of_each_alone():
    outputs, y = logits(), torch.arange(12) % 10
    for i in range(12):
        head = int(y[i]) // 2
        own, label = outputs[i : i + 1, 2 * head : 2 * head + 2], y[i : i + 1] % 2
        assert head_loss(outputs, y, 2)[i] == cross_entropy(own, label)[0]
        assert head_correct(outputs, y, 2)[i] == (own.argmax() == label)


def test_other_heads_get_no_gradient():
    outputs, y = logits().requires_grad_(), torch.arange(12) % 10
    head_loss(outputs, y, 2).sum().backward()
    assert outputs.grad is not None
    own = torch.arange(10)[None] // 2 == y[:, None] // 2
    assert (outputs.grad[own] != 0).all() and (outputs.grad[~own] == 0).all()


def test_one_head_of_ten_asks_more_than_the_own_head():
    outputs, y = logits(), torch.arange(12) % 10
    assert (CLASS.loss(outputs, y) > TASK.loss(outputs, y)).all()
    assert (CLASS.score(outputs, y) <= TASK.score(outputs, y)).all()
