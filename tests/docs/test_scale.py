"""What docs/scale.md says follows from its script, and the script from counts."""

import importlib.util
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from docs.pages import ROOT, prose, text

spec = importlib.util.spec_from_file_location("scale", ROOT / "docs" / "scale.py")
scale = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scale)

ROWS = json.loads(scale.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("make", [scale.sent_table, scale.check_table])
def test_the_tables_of_the_page_are_those_of_the_rows(make):
    assert make(ROWS) in text("scale.md")


def test_the_sum_of_the_pieces_is_as_good_as_the_page_says():
    shares = {"DDP": [], "FSDP2": []}
    for row in ROWS:
        for name in row["sent"]:
            way, kind = name.split()
            shares[way].append(100 * scale.predicted(row, way, kind) / row["seconds"][name])
    low, high = zip(
        *[(f"{min(own):.0f}", f"{max(own):.0f}") for own in shares.values()], strict=True
    )
    assert f"{low[0]} to {high[0]} % of a step with DistributedDataParallel" in prose("scale.md")
    assert f"{low[1]} to {high[1]} % of one with FSDP2" in prose("scale.md")


def test_the_plan_of_the_page_is_that_of_the_script():
    assert scale.plan_table(scale.Plan()) in text("scale.md")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["processes"]))
def test_what_was_sent_is_what_the_page_says(row):
    whole = row["gradient_bytes"]
    sent = {name: {x: b / whole for x, b in own.items()} for name, own in row["sent"].items()}
    for kind, gradients in (("plain", 1), ("between", 1), ("measured", 2)):
        assert sent[f"DDP {kind}"] == {"all-reduce": pytest.approx(gradients, rel=1e-3)}
    plain, measured = sent["FSDP2 plain"], sent["FSDP2 measured"]
    for exchange in ("all-gather", "reduce-scatter"):
        assert sent["FSDP2 between"][exchange] == plain[exchange]
        assert measured[exchange] == pytest.approx(3 * plain[exchange], rel=0.02)
    assert measured["all-reduce"] < 1e-3


def counted(step):
    with FlopCounterMode(display=False) as count:
        step()
    return count.get_total_flops()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tokens", "width"), [(16, 64), (16, 128), (64, 128), (128, 128)])
def test_the_arithmetic_of_the_plan_is_what_is_counted(tokens, width):
    """A step that measures h on the whole batch, in plain steps."""
    characters = torch.randint(65, (4, tokens + 1), generator=torch.Generator().manual_seed(0))
    batch = characters[:, :-1], characters[:, 1:]
    found = []
    for kind, options in (("plain", {}), ("measured", {"fraction": 1})):
        torch.manual_seed(0)
        model = scale.GPT(tokens, width=width, depth=2)
        found.append(counted(scale.steps(model, kind, batch, **options)))

    class Small(scale.Plan):
        matrices = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * 2
        matrices += [(65, width)]

    plan = Small(layers=2, width=width, tokens=tokens, texts=4, fraction=1.0)
    passes = plan.passes("measured")
    arithmetic = sum(passes) / plan.pass_flops(4)
    assert passes[0] == 0 and found[1] / found[0] == pytest.approx(arithmetic, rel=0.03)


def test_a_faster_network_or_fewer_measurements_make_the_plan_cheaper():
    plan, price = scale.Plan(), {}
    for overlapped in (True, False):
        price[overlapped] = plan.mean(overlapped=overlapped)
        assert plan.seconds("plain", overlapped=overlapped) < price[overlapped]
        rare = scale.Plan(every=50).mean(overlapped=overlapped)
        assert rare < price[overlapped]
    assert price[True] < price[False]
    fast = scale.Cluster(inside=1e15, between=1e15)
    alone = scale.Plan(cluster=fast)
    assert alone.mean(overlapped=False) == pytest.approx(alone.mean(overlapped=True), rel=1e-3)
    assert alone.mean(overlapped=False) < price[False]
