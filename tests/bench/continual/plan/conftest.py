"""A study of a small stream, whose runs are carried out in this process."""

import io

import pytest
from rich.console import Console

from f3eo.bench.continual.plan.study import StreamStudy
from f3eo.bench.execute import resume
from f3eo.bench.execute.pool import Update


@pytest.fixture
def make(blobs, tmp_path):
    def made_study(**changes):
        usual = {"name": "small", "streams": ("blobs",), "learners": ("sgd", "replay")}
        usual |= {
            "trials": 2,
            "seeds": 2,
            "stages": None,
            "samples": 40,
            "tests": None,
            "equal": ("steps",),
        }
        return StreamStudy(**(usual | {"folder": tmp_path} | changes))

    return made_study


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def executed(monkeypatch):
    """Runs are carried out in this process and noted; an interrupt follows the given number."""
    noted, stop = [], {"after": None}

    def execute(runs, workers, deadline, keep=None, kind=None):
        for run in runs:
            if len(noted) == stop["after"]:
                raise KeyboardInterrupt
            noted.append(run)
            yield Update(0, run, 0.0)
            yield Update(0, run, 1.0, kind.record(run))

    monkeypatch.setattr(resume, "execute", execute)
    return noted, stop
