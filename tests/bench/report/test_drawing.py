from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.report.drawing import highlighted, separated


@given(st.lists(st.floats(-1, 2), max_size=8).map(sorted))
def test_names_never_cover_each_other_and_stay_in_order_and_below_the_top(wanted):
    places = separated(wanted, 0.1)
    assert all(b - a > 0.1 - 1e-9 for a, b in pairwise(places))
    assert all(place <= 1.0 for place in places)


def test_names_with_room_stay_where_they_are():
    assert separated([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]


def test_no_two_methods_share_a_colour():
    assert len({method.colour for method in METHODS.values()}) == len(METHODS)


def test_of_many_methods_the_best_and_the_usual_are_named():
    assert highlighted(USUAL) == list(USUAL)
    few = highlighted(list(METHODS))
    assert set(USUAL) | set(list(METHODS)[:5]) == set(few) and len(few) <= 10


def test_a_crowd_spreads_evenly_about_where_it_was():
    assert separated([0.5, 0.5, 0.5], 0.1) == [0.4, 0.5, 0.6]
