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
