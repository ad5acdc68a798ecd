"""What holds for every page: its Python runs, its links lead somewhere, what it names exists."""

import importlib
import inspect
import re
import shlex
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import nn

import f3eo
import f3eo.cli
import f3eo.continual
import f3eo.control
import f3eo.extend
import f3eo.instruments
import f3eo.instruments.free_energy
import f3eo.integrations.fsdp
import f3eo.monitor
import f3eo.second_order
from docs.pages import PAGES, ROOT, blocks, names, prose, run, text
from f3eo import F3EO
from f3eo.bench.methods import METHODS
from f3eo.bench.models import MODELS
from f3eo.bench.price import VARIANTS as PRICED
from f3eo.bench.tasks import TASKS

BLOCKS = [(page, block) for page in PAGES for block in blocks(page)]
ROOMS = (
    *(f3eo, f3eo.extend, f3eo.second_order, f3eo.monitor),
    *(f3eo.instruments, f3eo.instruments.free_energy, f3eo.control, f3eo.continual),
    f3eo.integrations.fsdp,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize(
    ("page", "block"), BLOCKS, ids=[f"{page}-{i}" for i, (page, _) in enumerate(BLOCKS)]
)
def test_a_block_runs_and_trains_what_it_steps(page, block, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # of what a block writes
    given = names()
    models = {"given": given["model"]}
    before = [p.detach().clone() for p in models["given"].parameters()]
    space = run(block, given)
    if ".step(" in block and space["model"] is models["given"]:
        after = models["given"].parameters()
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_there_are_blocks_on_the_pages_that_show_code():
    shown = {page for page, _ in BLOCKS}
    assert {"README.md", "start.md", "choose.md", "estimand.md", "extend.md"} <= shown
    assert len(BLOCKS) >= 19


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_who_reads_it(page):
    assert page == "README.md" or re.search(r"^# .+\n\nFor (readers|contributors) ", text(page))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(text(page)) if ":" not in link]
    assert links, "a page leads on to another"
    for link in links:
        path, _, anchor = link.partition("#")
        file = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert file.exists() and file.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(file), link


def test_every_page_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in LINK.findall(text("README.md"))}
    assert {f"docs/{page}" for page in PAGES if page != "README.md"} <= linked


def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


PATH = re.compile(r"`([\w./-]+\.(?:py|md|svg|png|json|parquet|html|toml|txt))`")


@pytest.mark.parametrize("page", PAGES)
def test_the_files_a_page_names_exist(page):
    """Files a command has yet to make are under `runs/`."""
    for name in PATH.findall(text(page)):
        places = (ROOT, PAGES[page].parent, ROOT / "src/f3eo")
        assert name.startswith("runs/") or any((at / name).exists() for at in places), name


def dotted(name):
    """The object of a dotted name that begins with f3eo."""
    parts = name.split(".")
    found = f3eo
    for i, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(parts[:i]))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_modules_and_objects_a_page_names_exist(page):
    for name in set(re.findall(r"\bf3eo(?:\.[A-Za-z_]\w*)+", text(page))):
        assert dotted(name) is not None, name


CALL = re.compile(r"`(?:f3eo\.extend\.)?([A-Z]\w+)\(([^`]*)\)`")


@pytest.mark.parametrize("page", PAGES)
def test_the_calls_a_page_names_have_such_arguments(page):
    """`Ratio(0.3, Warmup(500))`: the class is public, and takes arguments of these names."""
    known = {k: v for m in (*ROOMS, torch.amp) for k, v in vars(m).items()}
    for name, arguments in CALL.findall(text(page)):
        taken = inspect.signature(known[name]).parameters
        for option in re.findall(r"(\w+)=", arguments):
            nested = any(
                option in inspect.signature(known[n]).parameters
                for n in re.findall(r"([A-Z]\w+)\(", arguments)
            )
            assert option in taken or nested, f"{name}({arguments})"


@pytest.mark.parametrize("module", ROOMS, ids=lambda m: m.__name__)
def test_every_public_name_is_code_on_a_page(module):
    spans = (re.findall(r"```.*?```|`[^`]+`", text(page), re.S) for page in PAGES)
    said = "\n".join(span for page in spans for span in page)
    hidden = {
        "Report",
        "SecondOrder",
    }  # of f3eo.second_order: what `report` holds, and the base class
    missing = [n for n in module.__all__ if n not in hidden and not re.search(rf"\b{n}\b", said)]
    assert not missing


def test_every_option_of_f3eo_is_in_the_table_with_its_default():
    said = text("choose.md")
    options = inspect.signature(F3EO).parameters
    for name, option in options.items():
        if option.kind is not inspect.Parameter.VAR_KEYWORD:  # options of the base
            assert f"\n| `{name}` |" in said, name
    assert options["every"].default == 5 and "this many times as strong | 5 |" in said
    assert options["on_nonfinite"].default == "skip" and '| `"skip"` |' in said
    made = F3EO(nn.Linear(2, 2), torch.optim.SGD, lr=0.1)
    for name in ("estimator", "rule", "strength"):
        assert f"`{getattr(made, name)!r}`" in said


def commands():
    """Every `f3eo …` of the pages, in code blocks and in prose; comments left out."""
    for page in PAGES:
        for line in re.findall(r"```sh\n(.*?)```", text(page), re.S):
            for command in line.splitlines():
                yield page, command.partition("#")[0].strip()
        for command in re.findall(r"`(f3eo [^`]+)`", prose(page)):
            yield page, command


COMMANDS = sorted({command for _, command in commands() if command.startswith("f3eo ")})
NAMES = {*METHODS, *TASKS, *PRICED, *MODELS, "all", "MODEL"}


@pytest.fixture(scope="module")
def options():
    """The help of a command, asked for once."""

    @cache
    def shown(command):
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
            patch.setattr(sys, "argv", ["f3eo", command, "--help"])
            patch.setenv("COLUMNS", "80")
            assert f3eo.cli.main() == 0
        return out.getvalue()

    return shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_pages_have_such_options_and_names(command, options):
    _, name, *words = shlex.split(command)
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag = word
            assert f"{flag} " in options(name) or f"{flag}," in options(name), flag
        elif flag in ("--methods", "--task", "--models"):
            assert word in NAMES, word
    assert options(name).startswith(f"usage: f3eo {name} ")
