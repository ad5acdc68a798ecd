"""Put the tables of a study into its page, docs/benchmark.md or docs/streams.md.

    python docs/tables.py results/study

Only what stands between the two marks of the page is written again.
"""

import sys
from pathlib import Path

from f3eo.bench.continual import report as streams
from f3eo.bench.continual.report import summary as stream_summary
from f3eo.bench.report import study_data, summary
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.marked import write_marked

DOCS = Path(__file__).parent


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a study: python docs/tables.py results/study")
    folder = Path(sys.argv[1])
    if streams.is_stream_study(folder):
        write_marked(DOCS / "streams.md", stream_summary.tables(streams.load(folder)))
    else:
        write_marked(DOCS / "benchmark.md", summary.tables(Analysis(study_data.load(folder))))
