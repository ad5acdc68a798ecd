"""Put the tables of the study into docs/benchmark.md.

    python docs/benchmark.py results/study

Only what stands between its two marks is written again.
"""

import sys
from pathlib import Path

from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.marked import write_marked
from f3eo.bench.report.study_data import load
from f3eo.bench.report.summary import tables

PAGE = Path(__file__).with_suffix(".md")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of the study: python docs/benchmark.py results/study")
    write_marked(PAGE, tables(Analysis(load(Path(sys.argv[1])))))
