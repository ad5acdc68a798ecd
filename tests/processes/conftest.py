"""One group of two and one of four processes for all tests here."""

import pytest

from processes.group import run


@pytest.fixture(scope="session", params=[2, 4], ids=["two", "four"])
def group(request, tmp_path_factory):
    """The results of every process of a group, by the name of the case."""
    return run(request.param, tmp_path_factory.mktemp("group"))
