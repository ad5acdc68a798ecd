"""The page on the three orders: its script asserts what it says and draws it; its code runs."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "three-orders.md").read_text(encoding="utf-8")


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
        assert number in " ".join(PAGE.split()) and code in script, number


def test_its_code_runs_as_it_stands(capsys):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    batch = torch.randn(6, 4), torch.randint(3, (6,))
    exec(block, {"model": model, "loader": [batch, batch]})
    assert capsys.readouterr().out.count("accepted=True") == 2
