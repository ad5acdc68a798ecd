"""What docs/free-energy.md says."""

import subprocess
import sys

import torch

from docs.pages import ROOT, block, names, run, text
from f3eo.instruments import decomposition, spectrum
from f3eo.instruments.free_energy import Laplace, free_energy


def test_the_record_has_both_terms_and_the_solved_precision():
    space = run(block("free-energy.md", containing="print(record)"), names(dtype=torch.float64))
    record = space["record"]
    squared = sum(float(p.detach().square().sum()) for p in space["model"].parameters())
    assert abs(record.precision * squared - record.dimension.value) < 1e-9
    assert abs(record.value - (record.complexity.value - record.accuracy.value)) < 1e-12
    given = space["model"], space["likelihood"], space["loader"]
    assert repr(record.value) == repr(free_energy(*given, space["GaussianPrior"]()).value)
    assert Laplace().structure == "full" and Laplace().of == "gauss_newton"


def test_the_error_of_a_change_is_smaller_than_that_of_a_record():
    given = names(dtype=torch.float64)
    first = run(block("free-energy.md", containing="print(record)"), given)
    space = run(block("free-energy.md", containing="print(Change"), first)
    change = space["Change"](space["before"], space["measured"]())
    assert change.accuracy.error < space["before"].accuracy.error


def test_the_limits_of_the_spectrum_are_the_ones_of_the_code():
    assert f"up to {decomposition.EXACT:,} rows" in text("free-energy.md")
    assert "64 products a probe" in text("free-energy.md")
    assert spectrum.__kwdefaults__["steps"] == 64


def test_the_script_asserts_the_page_and_makes_the_picture(tmp_path):
    script = [sys.executable, "-W", "error", str(ROOT / "docs" / "both_terms.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "both-terms.png").read_bytes()
    assert made.startswith(b"\x89PNG") and len(made) > 50_000
    said = text("free-energy.md")
    assert "at 0.94 of\nSGD's complexity, and 0.96 of" in said and "both-terms.png" in said
