import torch

from f3eo.bench.continual.streams.scores import correct, squared_error


def test_correct_is_one_or_zero_and_the_share_of_positions():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [1.0, 4.0]])
    assert correct(logits, torch.tensor([0, 0, 1, 1])).tolist() == [1, 0, 0, 1]
    texts = logits.view(1, 4, 2).expand(2, 4, 2)
    y = torch.tensor([[0, 1, 0, 0], [1, 1, 1, 0]])
    assert correct(texts, y).tolist() == [0.75, 0.25]


def test_the_squared_error_is_a_sum_over_outputs():
    outputs, y = torch.tensor([[1.0, 2.0], [0.0, 5.0]]), torch.tensor([[0.0, 4.0], [0.0, 2.0]])
    assert squared_error(outputs, y).tolist() == [5.0, 9.0]
