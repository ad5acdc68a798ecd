"""A reduction that merges the other half's estimates gives those of the whole batch."""

from itertools import product as tuples

import pytest
import torch

from cases import WHOLE, case
from dense import flat, relative, truth
from f3eo import F3EO, DoubleBackward, ModelSampled, PerSample, Ratio, Sign, Weighted
from f3eo.closure.problem import Problem
from f3eo.fisher import Gradients, Reduction, SingleProcess
from f3eo.fisher.reduction import Place


class WithOther(Reduction):
    """Joins the estimates of one other process."""

    def __init__(self, other: Gradients) -> None:
        self.other = other

    def reduce(self, gradients: Gradients, *_) -> Gradients:
        return gradients.merged(self.other)


def problem(c, closure, batch):
    parameters = list(c.model.parameters())
    return Problem(closure, batch, parameters, [True] * len(parameters), c.model)


def halves(c, closure, make, *batch):
    """Estimates from the first two samples, joined with those from the others."""
    first, second = (tuple(t[part] for t in batch) for part in (slice(2), slice(2, None)))
    other = make(1).gradients(problem(c, closure, second))
    return WithOther(other).reduce(make(0).gradients(problem(c, closure, first)))


def weighted(c):
    return lambda x, y, w: Weighted(c.losses(x, y), w)


def agree(found, loss, gradient, trace, structure):
    assert relative(found.loss, loss) < 1e-12
    assert relative(flat(found.gradient), gradient) < 1e-12
    assert relative(found.trace, trace) < 1e-11
    assert relative(flat(found.structure), structure) < 1e-11


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_per_sample_is_the_dense_truth_of_the_whole_batch(power):
    c = case("mlp")
    expected = truth(c.model, c.losses, *c.batch, power=power)
    found = halves(c, c.losses, lambda _: PerSample(DoubleBackward(), power=power), *c.batch)
    agree(found, expected.losses.mean(), expected.gradient, expected.trace, expected.structure)
    assert found.weight == len(c.batch[0])


def test_parts_count_by_the_weights_of_their_samples():
    c = case("mlp")
    w = torch.arange(len(c.batch[0])).double()
    t = truth(c.model, c.losses, *c.batch)
    shares = w / w.sum()

    def scaled(x, y, i):  # the mean of its loop over samples is that with weights
        return c.losses(x, y) * (shares * len(w))[i]

    found = halves(c, weighted(c), lambda _: PerSample(DoubleBackward(), power=1), *c.batch, w)
    index = torch.arange(len(w))
    structure = truth(c.model, scaled, *c.batch, index, power=1).structure
    agree(
        found,
        shares @ t.losses,
        shares @ t.gradients,
        shares @ t.squared_norms,
        structure,
    )
    assert float(found.weight) == float(w.sum())


def test_the_exact_model_sampled_one_is_that_of_the_whole_batch():
    c = case("mlp")
    estimator = ModelSampled(probes=None)
    whole = estimator.gradients(problem(c, c.drawn, c.batch))
    found = halves(c, c.drawn, lambda _: estimator, *c.batch)
    agree(found, whole.loss, flat(whole.gradient), whole.trace, flat(whole.structure))


class Signs(Sign):
    """Sign with given signs."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def signs(self, count, generator):
        return torch.tensor(self.values, dtype=torch.float64)


def test_signs_are_that_of_the_whole_batch_in_the_mean_over_all_of_them():
    c = case("mlp")
    batch = tuple(t[:4] for t in c.batch)
    expected = truth(c.model, c.losses, *batch)
    made = [
        halves(c, c.losses, lambda half, r=r: Signs(r[2 * half : 2 * half + 2]), *batch)
        for r in tuples([1.0, -1.0], repeat=4)
    ]
    mean = Gradients(
        loss=torch.stack([m.loss for m in made]).mean(),
        weight=4,
        gradient=[torch.stack(g).mean(0) for g in zip(*(m.gradient for m in made), strict=True)],
        structure=[torch.stack(h).mean(0) for h in zip(*(m.structure for m in made), strict=True)],
        trace=torch.stack([m.trace for m in made]).mean(),
    )
    agree(mean, expected.losses.mean(), expected.gradient, expected.trace, expected.structure)


def test_the_larger_error_is_reported_and_what_is_missing_stays_so():
    one = torch.ones(())
    first = Gradients(one, 1, [one, None], [one], one, 0.1 * one)
    second = Gradients(3 * one, 3, [None, None], None, None, 0.2 * one)
    found = WithOther(second).reduce(first)
    assert (
        float(found.loss) == 2.5 and found.weight == 4 and float(found.error) == float(second.error)
    )
    assert float(found.gradient[0]) == 0.25 and found.gradient[1] is None
    assert found.structure is None and found.trace is None


def test_a_single_process_changes_nothing():
    one = torch.ones(())
    gradients = Gradients(one, 1, [one], [one], one)
    assert SingleProcess().reduce(gradients, None) is gradients


@pytest.mark.parametrize("structure", [True, False])
def test_a_step_takes_the_estimates_of_all_processes(structure):
    """Two processes, each with half of the batch, step as one process with all of it."""

    def step(reduction, *batch):
        c = case("mlp")
        options = {"estimator": PerSample(), "strength": Ratio(0.3 * structure), **WHOLE}
        optimizer = F3EO(c.model, torch.optim.SGD, lr=0.1, **options)
        optimizer._reduction = reduction or optimizer._reduction
        optimizer.step(c.losses, *batch)
        return flat([p.detach() for p in c.model.parameters()])

    c = case("mlp")
    first, second = (tuple(t[part] for t in c.batch) for part in (slice(2), slice(2, None)))
    other = problem(c, c.losses, second)
    measured = PerSample().gradients(other) if structure else PerSample().loss_gradient(other)
    found, expected = step(WithOther(measured), *first), step(None, *c.batch)
    assert relative(found, expected) < 1e-7  # h by finite differences
    assert relative(step(None, *first), expected) > 1e-4


def test_a_single_process_is_alone_and_a_place_has_the_device_of_its_parameters():
    assert SingleProcess().alone and not WithOther(Gradients.nothing([])).alone

    def place(*parameters):
        return Place(0, list(parameters), [True] * len(parameters), Sign(), 0, 1.0, True, False)

    assert place(torch.empty(2, device="meta")).device.type == "meta"
    assert place().device.type == "cpu" and place().structured == []


def test_a_part_without_weight_counts_nothing_even_where_it_is_not_finite():
    def part(weight, values):
        values = torch.tensor(values)
        return Gradients(values[0], torch.tensor(weight), [values], [values], values[0])

    good, bad = part(2.0, [1.0, 3.0]), part(0.0, [torch.nan, torch.inf])
    for one, other in ((good, bad), (bad, good)):
        merged = one.merged(other)
        assert merged.gradient[0].tolist() == merged.structure[0].tolist() == [1.0, 3.0]
        assert float(merged.loss) == float(merged.trace) == 1.0
