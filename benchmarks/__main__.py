"""The suite: every module of this folder that has `rows`, one table, a file of results and a plot.

python -m benchmarks                        # all of it, an hour or more
python -m benchmarks --share 0.1 --pairs 1  # a look; kept nowhere
python -m benchmarks --only loader search
python -m benchmarks --readme               # the README's table out of the newest results
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import ratios, records
from benchmarks.ratios import Row
from benchmarks.suite import measured, names

_LINE = "{:72} {:>8} {:>18} {:>8} {:>4}"
HEADER = _LINE.format("work", "ratio", "spread", "goal", "met")


def line(row: Row) -> str:
    return _LINE.format(row.name, *records.cells(row))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these modules alone")
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="of the work that the goals speak of; less than 1 is kept nowhere",
    )
    parser.add_argument("--pairs", type=int, default=ratios.PAIRS, help="of a measurement and its limit")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="write the README's table out of the newest results, and measure nothing",
    )
    asked = parser.parse_args()
    if asked.readme:
        records.write_readme()
        return 0
    known = names()
    strange = sorted(set(asked.only or []) - set(known))
    if strange:
        parser.error(f"there is no benchmark {strange[0]!r}; there are: {', '.join(known)}")
    failed = []
    print(HEADER, flush=True)
    for name in asked.only or known:
        try:
            for row in measured(name, asked.share, asked.pairs):
                print(line(row), flush=True)
                if asked.share >= 1:
                    records.write([row])
        except RuntimeError as error:
            failed.append(str(error))
    if asked.share >= 1 and records.FOLDER.exists():
        print(f"written: {records.plot()}")
    for message in failed:
        print(message, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
