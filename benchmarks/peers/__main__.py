"""Compare peers with a raw loop over the same files and model: the loop's time over the peer's.

    python -m benchmarks.peers                          # uses .venv-peers, which `make bench-peers` creates
    python -m benchmarks.peers --only daft --share 0.1 --pairs 1

Each script runs in a process of its own and measures from its first call to the last stored vector: the time
includes model loading and the start of the library, and excludes imports.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import ratios, records
from benchmarks.__main__ import HEADER, line
from benchmarks.packages import members
from benchmarks.ratios import Row, measure_pairs
from benchmarks.scale import PICTURES
from benchmarks.sentences import sentences

FOLDER = Path(__file__).parent
PYTHON = FOLDER.parent.parent / ".venv-peers" / "bin" / "python"
PEERS = {"ray": "plain Ray Data", "daft": "Daft", "datachain": "DataChain", "pixeltable": "Pixeltable"}
_COUNTS = {"text": 10_000, "image": 1_500}
_NAMES = {"text": "sentences, MiniLM", "image": "PNG, EfficientNet-lite0"}


def main() -> int:
    """Measure the selected peers; return 1 where one of them failed, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="share of 10,000 sentences and 1,500 pictures; results below 0.2 are not stored",
    )
    parser.add_argument("--pairs", type=int, default=ratios.PAIRS)
    arguments = parser.parse_args()
    if not PYTHON.exists():
        parser.error(f"{PYTHON} does not exist; run: make bench-peers")
    failed = []
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory(prefix="mm-peers-") as scratch:
        for kind, files in write_files(Path(scratch), arguments.share).items():
            for peer in arguments.only:
                try:
                    count = max(32, round(_COUNTS[kind] * arguments.share))
                    row = measure(Path(scratch), peer, kind, files, count, arguments.pairs)
                except RuntimeError as error:
                    failed.append(str(error))
                    continue
                print(line(row), flush=True)
                if arguments.share >= 0.2:
                    records.write([row])
        _stop_postgres(Path(scratch))
    for message in failed:
        print(message, file=sys.stderr)
    return 1 if failed else 0


def write_files(folder: Path, share: float) -> dict[str, Path]:
    """Write texts and pictures; return the path for each kind."""
    count = {kind: max(32, round(number * share)) for kind, number in _COUNTS.items()}
    texts, pictures = folder / "texts.parquet", folder / "pictures"
    pq.write_table(
        pa.table({"id": range(count["text"]), "text": list(sentences(folder / "corpus", count["text"]))}),
        texts,
    )
    pictures.mkdir()
    for name, data in itertools.islice(members(folder / "corpus", *PICTURES), count["image"]):
        (pictures / name).write_bytes(data)
    return {"text": texts, "image": pictures}


def measure(folder: Path, peer: str, kind: str, files: Path, count: int, pairs: int) -> Row:
    """Measure a peer and return its row.

    Raises:
        RuntimeError: if a script fails or stores another number of vectors; the message has the end of its
        output.
    """

    def seconds(script: str) -> float:
        return _seconds(folder, script, kind, files, count)

    name = f"peer {PEERS[peer]}, {count:,} {_NAMES[kind]}"
    seconds(f"on_{peer}")  # warm-up: libraries prepare files once on a machine
    return measure_pairs(
        name, lambda: seconds(f"on_{peer}"), lambda: seconds("raw_loop"), goal=None, sense=">=", pairs=pairs
    )


def _seconds(folder: Path, script: str, kind: str, files: Path, count: int) -> float:
    command = [
        str(PYTHON),
        str(FOLDER / f"{script}.py"),
        kind,
        str(files),
        str(_model(kind)),
        str(folder / uuid4().hex),
    ]
    # Libraries write their own files beside the inputs, and send no usage statistics.
    folders = {"DATACHAIN_ROOT_DIR": str(folder / "datachain"), "PIXELTABLE_HOME": str(folder / "pixeltable")}
    quiet = {
        "DATACHAIN_NO_ANALYTICS": "1",
        "DAFT_ANALYTICS_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    # DataChain would reuse the results of an earlier run.
    anew = {"DATACHAIN_IGNORE_CHECKPOINTS": "1"}
    # Workers of the peers can import `work`, and nothing of the platform.
    environment = {**os.environ, **folders, **quiet, **anew, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    answers = [text for text in done.stdout.splitlines() if text.startswith('{"seconds"')]
    if done.returncode or not answers:
        raise RuntimeError(
            f"{script} {kind} ended with {done.returncode}: {(done.stderr or done.stdout)[-1_500:]}"
        )
    answer = json.loads(answers[-1])
    if answer["stored"] != count:
        raise RuntimeError(f"{script} {kind} stored {answer['stored']:,} vectors of {count:,}")
    return float(answer["seconds"])


def _stop_postgres(folder: Path) -> None:
    """Stop the PostgreSQL server that Pixeltable leaves running."""
    pid_file = folder / "pixeltable" / "pgdata" / "postmaster.pid"
    if pid_file.exists():
        with suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGTERM)


def _model(kind: str) -> Path:
    from mm_embed_kernels.embedders import create

    return create("minilm").weights[0].parent if kind == "text" else create("conse").weights[0]


if __name__ == "__main__":
    sys.exit(main())
