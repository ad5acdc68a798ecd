"""One group of two and one of four processes for all tests here."""

import pytest

import ranks
from processes.cases import cases, work


@pytest.fixture(scope="session", params=[2, 4], ids=["two", "four"])
def group(request, tmp_path_factory):
    """The results of every process of a group, by the name of the case."""
    world = request.param
    return ranks.run(work, list(cases(world)), world, tmp_path_factory.mktemp("group"))
