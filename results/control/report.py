"""The table and the picture of docs/control.md, from rows.jsonl.

PYTHONPATH=src python results/control/report.py
"""

import json
from collections import defaultdict
from itertools import starmap
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
PICTURE = HERE.parents[1] / "docs" / "control.png"
Row = dict[str, Any]
NAMES = {"free": "FreeEnergy", "cap": "Cap", "none": "base alone", "target": "TraceTarget"}
COLOURS = {"none": "#555555", "target": "#c2185b", "cap": "#1565c0", "free": "#2e7d32"}


def settle(rows: list[Row]) -> list[str]:
    """Lines of the table of how far the trace ends from its target."""
    lines = [
        "| task | base | target, seed | τ | base alone | λ | log(mean T/τ) | mean log(T/τ) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    own = {(r["task"], r["base"]): r["trace"] for r in rows if r["strength"] == "none"}
    for r in rows:
        if r["strength"] == "share":
            name = r["task"], r["base"]
            cells = (
                f"{r['task']}",
                r["base"],
                f"Share({r['value']}), {r['seed']}",
                f"{r['target']:.3g}",
                f"{own[name]:.3g}",
                f"{r['strength_last_third']:.2g}",
                f"{r['log_of_mean']:+.3f}",
                f"{r['mean_of_log']:+.3f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def grouped(rows: list[Row]) -> dict[tuple[str, float], list[Row]]:
    """Rows of all seeds by strength and value."""
    found = defaultdict(list)
    for r in rows:
        found[r["strength"], r["value"]].append(r)
    return found


def spread(rows: list[Row], name: str) -> tuple[float, float]:
    """Mean over seeds and its standard error."""
    values = [r[name] for r in rows]
    return mean(values), stdev(values) / len(values) ** 0.5


def line(name: tuple[str, float], rows: list[Row]) -> str:
    """One line of the table of the curve."""
    accuracy, loss = spread(rows, "held_out_accuracy"), spread(rows, "held_out_loss")
    trace = spread(rows, "trace")
    cells = (
        NAMES[name[0]] + (f" {name[1]:g}" if name[0] != "none" else ""),
        f"{len(rows)}",
        f"{trace[0]:.3g} ± {trace[1]:.2g}",
        f"{max(0.0, round(mean(r['strength_last_third'] for r in rows), 9)):.2g}",
        f"{100 * accuracy[0]:.1f} ± {100 * accuracy[1]:.1f}",
        f"{loss[0]:.3f} ± {loss[1]:.3f}",
        f"{mean(r['train_loss'] for r in rows):.3f}",
    )
    return f"| {' | '.join(cells)} |"


def draw(rows: list[Row]) -> None:
    """Courses of the trace to its target; held-out loss and accuracy over the trace."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    courses(axes[0], [r for r in rows if r["part"] == "curve" and r["seed"] == 0])
    both = grouped([r for r in rows if r["part"] in ("curve", "free")])
    for column, (axis, unit) in {
        "held_out_accuracy": (axes[1], 100),
        "held_out_loss": (axes[2], 1),
    }.items():
        for name, group in both.items():
            trace, value = spread(group, "trace"), spread(group, column)
            axis.errorbar(
                trace[0],
                unit * value[0],
                unit * value[1],
                trace[1],
                marker={"target": "o", "cap": "s", "free": "D", "none": "x"}[name[0]],
                color=COLOURS[name[0]],
                linestyle="none",
                label=NAMES[name[0]],
            )
            axis.annotate(
                f"{name[1]:g}" if name[0] != "none" else "",
                (trace[0], unit * value[0]),
                (4, 4),
                textcoords="offset points",
                fontsize=8,
            )
        axis.set(xscale="log", xlabel="trace, last third of training")
        axis.set_xticks([0.25, 0.5, 1, 2], labels=["0.25", "0.5", "1", "2"])
        axis.minorticks_off()
    handles = dict(zip(*reversed(axes[1].get_legend_handles_labels()), strict=True))
    axes[1].legend(handles.values(), handles.keys(), fontsize=8)
    axes[1].set_ylabel("held-out accuracy in %")
    axes[2].set_ylabel("held-out loss in nats")
    figure.savefig(PICTURE, dpi=130)


def courses(axis: Axes, rows: list[Row]) -> None:
    """The trace over the steps, one line a target."""
    for r in rows:
        steps = [20 * k + 10 for k in range(len(r["traces"]))]
        axis.plot(steps, r["traces"], color=COLOURS[r["strength"]], lw=1.2)
        if r["target"] is not None:
            axis.axhline(r["target"], color="#bbbbbb", lw=0.8, ls="--", zorder=0)
    axis.set(yscale="log", xlabel="step", ylabel="trace, mean of 20 batches")
    axis.set_title("dashed: τ; grey: the base alone", fontsize=9)


def main() -> None:
    """Print the tables and write the picture."""
    rows = [json.loads(text) for text in (HERE / "rows.jsonl").read_text().splitlines()]
    print("\n".join(settle([r for r in rows if r["part"] == "settle"])))
    groups = grouped([r for r in rows if r["part"] in ("curve", "free")])
    print("| strength | seeds | trace | λ | held-out accuracy, % | held-out loss | training loss |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(starmap(line, groups.items())))
    print("\n".join(starmap(line, grouped([r for r in rows if r["part"] == "default"]).items())))
    draw(rows)


if __name__ == "__main__":
    main()
