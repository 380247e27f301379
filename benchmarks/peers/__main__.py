"""Peers on the same files with the same model, batch size and cores as a raw loop, by turns: its time over theirs, larger is faster.

    python -m benchmarks.peers                          # in .venv-peers, which `make bench-peers` makes
    python -m benchmarks.peers --only daft --share 0.1 --pairs 1

Each script runs in a process of its own and counts from its first call to the last vector stored: models and the start of its
library are in it, imports are not.
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
from benchmarks.ratios import Row, paired
from benchmarks.scale import PICTURES
from benchmarks.sentences import sentences

FOLDER = Path(__file__).parent
PYTHON = FOLDER.parent.parent / ".venv-peers" / "bin" / "python"
PEERS = {"ray": "plain Ray Data", "daft": "Daft", "datachain": "DataChain", "pixeltable": "Pixeltable"}
_COUNTS = {"text": 10_000, "image": 1_500}
_NAMES = {"text": "sentences, MiniLM", "image": "PNG, EfficientNet-lite0"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="of 10,000 sentences and 1,500 pictures; less than 0.2 is kept nowhere",
    )
    parser.add_argument("--pairs", type=int, default=ratios.PAIRS)
    asked = parser.parse_args()
    if not PYTHON.exists():
        parser.error(f"{PYTHON} is not there; `make bench-peers` makes it")
    failed = []
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory(prefix="mm-peers-") as scratch:
        for kind, files in made(Path(scratch), asked.share).items():
            for peer in asked.only:
                try:
                    row = measured(
                        Path(scratch),
                        peer,
                        kind,
                        files,
                        max(32, round(_COUNTS[kind] * asked.share)),
                        asked.pairs,
                    )
                except RuntimeError as error:
                    failed.append(str(error))
                    continue
                print(line(row), flush=True)
                if asked.share >= 0.2:
                    records.write([row])
        _stop_postgres(Path(scratch))
    for message in failed:
        print(message, file=sys.stderr)
    return 1 if failed else 0


def made(folder: Path, share: float) -> dict[str, Path]:
    """The files of each kind."""
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


def measured(folder: Path, peer: str, kind: str, files: Path, count: int, pairs: int) -> Row:
    """A peer's row.

    Raises:
        RuntimeError: with the end of its output, for a script that fails or stores another number of vectors.
    """

    def seconds(script: str) -> float:
        return _seconds(folder, script, kind, files, count)

    name = f"peer {PEERS[peer]}, {count:,} {_NAMES[kind]}"
    seconds(f"on_{peer}")  # what a library prepares once on a machine
    return paired(
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
    # What a library keeps for itself goes where the files are, and no counts of use leave the machine.
    kept = {"DATACHAIN_ROOT_DIR": str(folder / "datachain"), "PIXELTABLE_HOME": str(folder / "kept")}
    quiet = {
        "DATACHAIN_NO_ANALYTICS": "1",
        "DAFT_ANALYTICS_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    # It would answer a run that it has done before out of that one's results.
    anew = {"DATACHAIN_IGNORE_CHECKPOINTS": "1"}
    # Their workers find `work`, and nothing of the platform.
    environment = {**os.environ, **kept, **quiet, **anew, "PYTHONPATH": str(FOLDER)}
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
    """Pixeltable's, which it leaves running for its next start."""
    noted = folder / "kept" / "pgdata" / "postmaster.pid"
    if noted.exists():
        with suppress(ProcessLookupError):
            os.kill(int(noted.read_text().split()[0]), signal.SIGTERM)


def _model(kind: str) -> Path:
    from mm_embed_kernels.embedders import create

    return create("minilm").weights[0].parent if kind == "text" else create("conse").weights[0]


if __name__ == "__main__":
    sys.exit(main())
