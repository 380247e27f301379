"""Compare the last version of a chain with the second: seconds of the backfill, and bytes written.

Each version follows the one before it, and differs from it in one sample of a hundred.

Run: .venv/bin/python -m benchmarks.chain --count 100000 --versions 30
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import ratios
from benchmarks.embedding_inputs import FOLDER
from benchmarks.increment import KINDS, Cost, Dataset
from benchmarks.ratios import Row

_COUNT, _VERSIONS = 100_000, 30


def main() -> None:
    """Print the costs of each version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=_COUNT, help="samples of each version")
    parser.add_argument("--versions", type=int, default=_VERSIONS, help="versions of the chain")
    parser.add_argument("--corpus", type=Path, default=FOLDER, help="cache of texts")
    arguments = parser.parse_args()
    costs = measure(arguments.corpus, arguments.count, arguments.versions)
    for number, cost in enumerate(costs, 1):
        print(f"v{number}: {cost.seconds:.1f} s, {cost.written / 2**20:,.2f} MiB")


def rows(share: float) -> Iterator[Row]:
    """Measure the chain once for each pair: its versions are the repetition."""
    count, versions = max(400, round(_COUNT * share)), max(4, round(_VERSIONS * min(1.0, 4 * share)))
    chains = [measure(FOLDER, count, versions) for _ in range(ratios.PAIRS)]
    for what in ("seconds", "written"):
        found = [getattr(chain[-1], what) / getattr(chain[1], what) for chain in chains]
        name = {"seconds": "time", "written": "bytes"}[what]
        title = f"{name} of version {versions} of a chain of {count:,}, of version 2's"
        yield ratios.row(title, found, goal=1.2, sense="<=")


def measure(corpus: Path, count: int, versions: int) -> list[Cost]:
    """Run a chain of versions in a new store; return their costs."""
    kind, step = KINDS["records"], max(1, count // 100)
    items = kind.items(corpus, count + step * versions)
    with tempfile.TemporaryDirectory(prefix="mm-chain-", dir=corpus) as scratch:
        folder = Path(scratch)
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        chain = Dataset("chain", folder / "chain", environment, items, count, "wordllama", kind)
        return [chain.version(f"v{number + 1}", number * step) for number in range(versions)]


if __name__ == "__main__":
    main()
