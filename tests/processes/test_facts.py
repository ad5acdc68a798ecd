"""What processes tell one another: no number is lost, and what differs is refused."""

import re
from dataclasses import replace
from math import isnan, nan

import pytest

from docs.pages import prose
from f3eo.processes.facts import Facts, from_numbers, refusal

OWN = Facts(
    failed=True,
    step=3,
    part=1,
    parameters=5,
    entries=2**40 + 1,
    start=0.1,
    samples=True,
    counted=False,
    weight=7.5,
    factor=0.5,
    uniform=False,
    structure=True,
    squares=True,
    norms=True,
    observed=True,
    loss=2,
    trace=3,
    error=1e-3,
    counters=(1.0, 2.0, 3.0, 4.0),
)


@pytest.mark.parametrize("facts", [OWN, replace(Facts(), start=0.0, factor=0.0)])
def test_numbers_give_the_facts_back(facts):
    assert from_numbers(facts.numbers()) == facts


def test_a_process_that_failed_claims_nothing_else():
    found = Facts(failed=True)
    assert not any([found.samples, found.structure, found.squares, found.norms, found.observed])
    assert found.loss == found.trace == found.error == -1  # not measured
    assert found.step == found.part == found.parameters == found.entries == found.weight == 0
    assert isnan(found.start) and isnan(found.factor) and not any(found.counters)
    assert found.counted and found.uniform and not Facts().failed


def test_there_are_as_many_numbers_whatever_the_counters_and_the_page_says_how_many():
    counts = {len(replace(OWN, counters=(1.0,) * k).numbers()) for k in (0, 2, 4, 6)}
    assert counts == {len(OWN.numbers())}
    assert f"and {len(OWN.numbers())} numbers" in prose("processes.md")


FINE = Facts(step=3, parameters=2, entries=9, samples=True, weight=4.0, factor=1.0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"weight": 9.0},
        {"samples": False, "factor": nan},
        {"factor": 1 + 1e-6},
        {"structure": True},
    ],
)
def test_processes_that_differ_in_their_samples_step_together(change):
    assert refusal([FINE, replace(FINE, **change), FINE]) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": 4}, r"number of the step: \[3, 4, 3\]"),
        ({"part": 1}, r"number of the part"),
        ({"parameters": 3}, r"number of the parameters"),
        ({"entries": 8}, r"number of the entries"),
        ({"start": 0.5}, r"start from different parameters"),
        ({"factor": 1.001}, r"\.grad.*max_norm"),
        ({"factor": -1.0}, r"\.grad.*max_norm"),
        ({"uniform": False}, r"\.grad.*max_norm"),
    ],
)
def test_processes_that_differ_otherwise_are_refused(change, words):
    assert re.search(words, refusal([FINE, replace(FINE, **change), FINE]) or "")


def test_equal_starts_are_fine_and_others_are_refused():
    first = replace(FINE, start=0.5)
    assert refusal([first, first]) is None
    assert "start from" in (refusal([first, replace(FINE, start=0.50001)]) or "")
