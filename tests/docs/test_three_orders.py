"""docs/three-orders.md: its script asserts what it says and draws it; its code runs."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import SGD

from docs.pages import ROOT, block, prose
from f3eo import F3EO

DOCS = ROOT / "docs"


def test_the_script_asserts_the_page_and_makes_the_picture(tmp_path):
    script = [sys.executable, "-W", "error", str(DOCS / "three_orders.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "three-orders.png").read_bytes()
    assert made.startswith(b"\x89PNG") and len(made) > 50_000
    assert (DOCS / "three-orders.png").exists()


def test_the_page_says_the_numbers_that_the_script_asserts():
    script = (DOCS / "three_orders.py").read_text(encoding="utf-8")
    for number, code in {
        "−0.883": "-0.883",
        "0.92 in the sharp": "0.92, 0.92, 0.05",
        "0.05 in the flat": "0.92, 0.92, 0.05",
        "| 41 |": "[41, 9, 105]",
        "| 9 |": "[41, 9, 105]",
        "| 105 |": "[41, 9, 105]",
        "63 starts": "(63, 37, 41)",
        "the flat valley from 37, F3EO from 41": "(63, 37, 41)",
        "(−0.7, 0.4)": "(-0.7, 0.4)",
        "1.2 instead of 0.1": "first(model, 1.2)",
        "7/3": "7 / 3",
        "Adam (learning rate 0.05)": "Adam(model.parameters(), lr=0.05)",
        "4/3 + 2 (k + 1)": "4 / 3 + 2 * (k + 1)",
        "2 + 4/3 (k + 1)": "2 + 4 / 3 * (k + 1)",
        "2 + L/3 (k + 1)": "2 + 25 / 3 * (k + 1)",
    }.items():
        assert number in prose("three-orders.md") and code in script, number


def test_a_default_step_costs_what_it_says():
    assert "| F3EO, defaults | 1.05 on average |" in prose("three-orders.md")
    assert F3EO(nn.Linear(2, 2), SGD, lr=0.1).gradient_equivalents == pytest.approx(1.05)


def test_its_code_reports_every_step(capsys):
    torch.manual_seed(0)
    source = block("three-orders.md", containing="GaussNewton")
    batch = torch.randn(6, 4), torch.randint(3, (6,))
    exec(source, {"model": nn.Linear(4, 3), "loader": [batch, batch]})
    assert capsys.readouterr().out.count("accepted=True") == 2
