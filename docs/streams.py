"""Put the tables of a stream study into docs/streams.md.

    python docs/streams.py results/streams

Only what stands between its two marks is written again.
"""

import sys
from pathlib import Path

from f3eo.bench.continual.report import load
from f3eo.bench.continual.report.summary import tables
from f3eo.bench.report.marked import write_marked

PAGE = Path(__file__).with_suffix(".md")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a stream study: python docs/streams.py results/streams")
    write_marked(PAGE, tables(load(Path(sys.argv[1]))))
