"""What docs/performance.md says can be measured again, in part; the rest names its command."""

import subprocess
import sys

import pytest
from torch import nn
from torch.optim import SGD

from docs.pages import ROOT, prose, table, text
from f3eo import F3EO
from f3eo.bench.models import MODELS
from f3eo.bench.price import VARIANTS


def test_the_cost_by_count_is_what_the_optimizer_states():
    assert "costs 1.05 plain gradients; with `fraction=1, every=1` it costs 2" in (
        prose("performance.md")
    )
    model = nn.Linear(2, 2)
    assert F3EO(model, SGD, lr=0.1).gradient_equivalents == pytest.approx(1.05)
    assert F3EO(model, SGD, lr=0.1, fraction=1, every=1).gradient_equivalents == 2


def test_the_rows_of_the_cost_table_can_be_asked_for():
    rows = table("performance.md", "step")
    assert all(row[1].strip("`") in VARIANTS for row in rows[:-1]) and len(rows) == 17
    header = next(line for line in text("performance.md").splitlines() if "| step |" in line)
    assert set(header.strip("| ").split(" | ")[2:]) <= set(MODELS)


def test_the_rows_of_the_default_can_be_asked_for_by_its_command():
    asked = [row[1].strip("`") for row in table("performance.md", "version 0.3")]
    said = next(
        line for line in text("performance.md").splitlines() if "f3eo cost --methods" in line
    )
    assert set(asked) <= set(VARIANTS) and all(f" {name} " in said for name in asked)


def test_the_checks_in_1000_steps_are_as_many_as_it_says():
    """At the 1st, 4th, 16th, … measurement, every fifth step measuring by default."""

    def checks(measurements):
        return sum(4**k <= measurements for k in range(20))

    assert checks(1000 // 5) == 4 and checks(1000) == 5
    said = prose("performance.md")
    assert "In 1,000 steps of the default this happens four times" in said
    assert "With `fraction=1, every=1` it happens five times" in said


def test_the_table_of_accuracy_is_what_its_script_prints():
    """Errors within a factor of three: rounding differs between processors."""
    script = ROOT / "docs" / "accuracy.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = [
        [float(cell) for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()[2:]
    ]
    shown = [[float(cell) for cell in row] for row in table("performance.md", "loss")]
    assert len(printed) == len(shown) == 8
    for ours, theirs in zip(printed, shown, strict=True):
        assert ours[0] == pytest.approx(theirs[0], rel=0.1)
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            assert 1 / 3 < a / b < 3
