"""Run the suite: every module of this folder with a function `rows`; print a table, write results and a plot.

python -m benchmarks                        # the whole suite: an hour or more
python -m benchmarks --share 0.1 --pairs 1  # a short trial; results are not stored
python -m benchmarks --only loader search
python -m benchmarks --page                 # write the table of the docs from the newest results
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import ratios, records
from benchmarks.ratios import Row
from benchmarks.suite import measure, names

_LINE = "{:72} {:>8} {:>18} {:>8} {:>4}"
HEADER = _LINE.format("work", "ratio", "spread", "goal", "met")


def line(row: Row) -> str:
    """Return a row as one line of the printed table."""
    return _LINE.format(row.name, *records.cells(row))


def main() -> int:
    """Measure the selected modules; return 1 where one of them failed, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure these modules only")
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="share of the work that the goals refer to; results below 1 are not stored",
    )
    parser.add_argument(
        "--pairs", type=int, default=ratios.PAIRS, help="pairs of a measurement and its limit"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write the table of the docs from the newest results; measure nothing",
    )
    arguments = parser.parse_args()
    if arguments.page:
        records.write_page()
        return 0
    available = names()
    unknown = sorted(set(arguments.only or []) - set(available))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(available)}")
    failed = []
    print(HEADER, flush=True)
    for name in arguments.only or available:
        try:
            for row in measure(name, arguments.share, arguments.pairs):
                print(line(row), flush=True)
                if arguments.share >= 1:
                    records.write([row])
        except RuntimeError as error:
            failed.append(str(error))
    if arguments.share >= 1 and records.FOLDER.exists():
        print(f"written: {records.plot()}")
    for message in failed:
        print(message, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
