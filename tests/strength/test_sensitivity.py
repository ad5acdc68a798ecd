"""λ by the relative sensitivity of the loss, against its formula."""

import pytest
import torch

from f3eo import Sensitivity
from f3eo.extend import Observation


def at(strength: Sensitivity, trace: float | None, loss: float) -> float:
    trace = None if trace is None else torch.tensor(trace)
    return strength.at(Observation(0, loss, trace, 1.0))


@pytest.mark.parametrize(("root", "loss"), [(0.3, 1.0), (0.99, 1.0), (1.2, 4.0), (0.0, 2.0)])
def test_below_the_threshold_it_falls_with_the_order(root, loss):
    q = root / loss
    assert at(Sensitivity(), root**2, loss) == pytest.approx(q**4)
    found = at(Sensitivity(3.0, threshold=2.0, order=1.5), root**2, loss)
    assert found == pytest.approx(3 * (q / 2) ** 1.5)


@pytest.mark.parametrize(("root", "loss"), [(1.01, 1.0), (50.0, 1.0), (1.0, 0.0), (1.0, -3.0)])
def test_above_it_and_for_densities_it_is_the_value(root, loss):
    assert at(Sensitivity(0.7), root**2, loss) == 0.7


def test_without_a_trace_it_is_the_value():
    assert at(Sensitivity(0.7), None, 1.0) == 0.7


@pytest.mark.parametrize("unit", [1e-3, 40.0])
def test_it_does_not_depend_on_the_unit_of_the_loss(unit):
    """At power 1 h has that unit, too, and λ has none."""
    assert at(Sensitivity(), (0.3 * unit) ** 2, unit) == pytest.approx(0.3**4)


def test_it_is_shorter_than_the_gradient():
    assert Sensitivity().multiplier(1.0, 2.0, 8.0) == pytest.approx(0.3 * 0.25)
    assert Sensitivity(limit=2).multiplier(1.0, 2.0, 8.0) == 0.5


@pytest.mark.parametrize("name", ["threshold", "order"])
@pytest.mark.parametrize("given", [0, -1.0, float("inf"), float("nan")])
def test_a_bad_number_is_refused(name, given):
    with pytest.raises(ValueError, match=f"finite {name} > 0, received {given}"):
        Sensitivity(**{name: given})


def measured_steps(
    strength: Sensitivity, roots, steps: int, every: int = 1, begin: int = 0
) -> list[int]:
    """The steps that measure, as F3EO asks for them; `roots` gives √Tr at the step, L is 1."""
    found = []
    for step in range(begin, steps):
        measures = step % every == 0 and strength.scheduled(step) > 0
        trace = torch.tensor(roots(step) ** 2)
        strength.at(Observation(step, 1.0, trace, measured=measures))
        if measures:
            found.append(step)
    return found


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("rest", [100, 7, 0])
def test_where_it_vanishes_it_rests_for_a_quarter_of_the_steps_so_far(rest, every):
    step, expected = 0, []
    while step < 1000:
        expected.append(step)
        until = max(step + 1, step + min(rest, step // 4))
        step = -(-until // every) * every  # the next step that is due
    assert measured_steps(Sensitivity(rest=rest), lambda step: 0.1, 1000, every) == expected


def test_one_lambda_at_its_value_wakes_it_until_its_mean_is_faint_again():
    """0.1·0.9^k < 0.01 from k = 22 on."""
    *before, wakes = measured_steps(Sensitivity(rest=10**6), lambda step: 0.0, 400)
    found = measured_steps(Sensitivity(rest=10**6), lambda step: float(step == wakes), 600)
    faint = wakes + 22
    assert found == [*before, *range(wakes, faint + 1), faint + faint // 4]


@pytest.mark.parametrize("root", [0.32, 2.0])
def test_where_it_acts_it_never_rests(root):
    """0.32⁴ is just above a hundredth."""
    assert measured_steps(Sensitivity(), lambda step: root, 300) == list(range(300))


def test_a_lambda_that_fluctuates_does_not_let_it_rest():
    """Batches of which the measured part is fitted by chance say nothing about the others."""
    assert measured_steps(Sensitivity(), lambda step: float(step % 10 == 0), 300) == list(
        range(300)
    )


def test_it_continues_from_its_counters():
    whole, half = Sensitivity(), Sensitivity()
    roots = lambda step: 0.1 if step < 150 else 0.9  # noqa: E731
    expected = measured_steps(whole, roots, 300)
    begun = measured_steps(half, roots, 130)
    resumed = Sensitivity()
    resumed.load(half.counters())
    found = measured_steps(resumed, roots, 300, begin=130)
    assert begun + found == expected and resumed.counters() == whole.counters()
    resumed.load({})
    assert resumed.counters() == Sensitivity().counters()


@pytest.mark.parametrize("given", [-1, 2.5, True, "10"])
def test_a_bad_rest_is_refused(given):
    with pytest.raises((TypeError, ValueError), match=f"rest.* received {given!r}"):
        Sensitivity(rest=given)
