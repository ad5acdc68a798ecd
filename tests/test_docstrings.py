"""Examples in docstrings give the output that they show."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "curvature.conjugate_gradients",
    "curvature.empirical_fisher",
    "curvature.gauss_newton",
    "curvature.hessian",
    "curvature.quadratic",
    "curvature.vectors",
    "instruments.grouping",
    "instruments.memorisation",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_the_output_they_show(name):
    result = doctest.testmod(import_module(f"f3eo.{name}"))
    assert result.attempted and not result.failed
