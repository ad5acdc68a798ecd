"""The examples in the docstrings of the curvature models give the output that they show."""

import doctest
from importlib import import_module

import pytest

MODULES = ["conjugate_gradients", "gauss_newton", "hessian", "quadratic", "vectors"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_the_output_they_show(name):
    result = doctest.testmod(import_module(f"f3eo.curvature.{name}"))
    assert result.attempted and not result.failed
