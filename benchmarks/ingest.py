"""Compare ingesting files with copying and hashing the same files, in alternating pairs.

    python -m benchmarks.ingest

A ratio above 1 means that ingesting takes longer than `cp` and `sha256sum`. On S3 (the tests' server, a
process on this machine) the limit uploads the same files with s3fs, eight at a time, and hashes them, so that
both sides share the server.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa

from benchmarks.ratios import Row, measure_pairs
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.runner import run_inline
from mm_resources.ingestion.fetch_kernel import FetchKernel
from mm_resources.sources import open_source
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store
from tests.s3 import BUCKET, S3

_THREADS = 8
_SMALL, _LARGE = 10_000, 20


def main() -> None:
    """Print a ratio for each kind of file and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=_SMALL, help="number of small files (2 to 62 KB each)")
    parser.add_argument("--large", type=int, default=_LARGE, help="number of large files (100 MiB each)")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=("local", "s3"), default=["local", "s3"])
    parser.add_argument(
        "--folder", type=Path, default=None, help="folder of the files; by default the temporary folder"
    )
    arguments = parser.parse_args()
    configure_process()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="mm-ingest-") as folder:
        run(Path(folder), arguments.files, arguments.large, arguments.pairs, arguments.stores)


def rows(share: float) -> Iterator[Row]:
    """Measure small and large files into a local store."""
    configure_process()
    with tempfile.TemporaryDirectory(prefix="mm-ingest-") as scratch:
        folder = Path(scratch)
        files, large = max(100, round(_SMALL * share)), max(1, round(_LARGE * share))
        for (name, source), goal in zip(write_sets(folder, files, large).items(), (0.8, 0.9), strict=True):
            time_pair(folder, source, "local")  # warm-up
            yield measure_pairs(
                f"ingest, {name}",
                partial(time_ingest, folder, source),
                partial(time_copy, folder, source),
                goal=goal,
                sense=">=",
            )


def write_sets(folder: Path, files: int, large: int) -> dict[str, Path]:
    """Write small and large files; return the folder of each set by the description of the set."""
    random = np.random.default_rng(0)
    return {
        f"{files:,} small files": write_files(
            folder / "small", random, [int(size) for size in random.integers(2_000, 62_000, files)]
        ),
        f"{large} files of 100 MiB": write_files(folder / "large", random, [100 << 20] * large),
    }


def run(folder: Path, files: int, large: int, pairs: int, stores: list[str]) -> None:
    """Write the files and print a ratio for each set of files and kind of store."""
    sets = write_sets(folder, files, large)
    (folder / "s3").mkdir()
    server = S3(folder / "s3")
    server.start()
    os.environ.update(server.environment())
    try:
        for name, source in sets.items():
            size = sum(path.stat().st_size for path in source.iterdir())
            for kind in stores:
                ratios, rates = [], []
                for pair in range(pairs + 1):
                    ours, theirs = time_pair(folder, source, kind)
                    if pair:  # the first pair is the warm-up
                        ratios.append(ours / theirs)
                        rates.append(size / ours / 2**20)
                listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                rate = statistics.median(rates)
                print(
                    f"{name}, {kind}: ratio {statistics.median(ratios):.2f} (of {listed}), {rate:,.0f} MiB/s",
                    flush=True,
                )
    finally:
        server.kill()


def time_pair(folder: Path, source: Path, kind: str) -> tuple[float, float]:
    """Return the seconds of an ingest into an empty store, and of copying and hashing the same files."""
    return time_ingest(folder, source, kind), time_copy(folder, source, kind)


def time_ingest(folder: Path, source: Path, kind: str = "local") -> float:
    """Return the seconds of an ingest into a new store, which is then deleted."""
    name = uuid4().hex
    root = str(folder / name) if kind == "local" else f"s3://{BUCKET}/{name}"
    try:
        return seconds(lambda: ingest(source, Store(root)))
    finally:
        _clear(folder, name)


def time_copy(folder: Path, source: Path, kind: str = "local") -> float:
    """Return the seconds of copying and hashing the files; the copies are then deleted."""
    name = uuid4().hex
    target = folder / name if kind == "local" else f"s3://{BUCKET}/{name}"
    try:
        return seconds(lambda: copy(source, target))
    finally:
        _clear(folder, name)


def _clear(folder: Path, name: str) -> None:
    for path in (folder / name, folder / "s3" / BUCKET / name):
        shutil.rmtree(path, ignore_errors=True)


def seconds(work: Callable[[], None]) -> float:
    """Return the seconds of `work`, with pending writes flushed to disk before."""
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ingest(source: Path, store: Store) -> None:
    """Fetch all files with the fetch kernel, as the ingest of a cell does inline."""
    spec = DatasetSpec.model_validate(
        {
            "name": "files",
            "version": "v1",
            "sources": [{"name": "s", "modality": "text", "uri": f"{source}/*"}],
        }
    )
    listed = open_source(spec.sources[0], {}).list()
    rows = [
        {
            "key": item.key,
            "source": "s",
            "source_uri": item.uri,
            "locator": item.locator,
            "tag": item.tag,
            "size": item.size,
        }
        for item in listed
    ]
    kernel = FetchKernel(spec, BlobStore(store))
    size = kernel.resources.batch_rows
    blocks = (pa.Table.from_pylist(rows[start : start + size]) for start in range(0, len(rows), size))
    statuses = [status for block in run_inline(kernel, blocks) for status in block["status"].to_pylist()]
    assert statuses == ["ok"] * len(rows), statuses


def copy(source: Path, target: Path | str) -> None:
    """Copy files one by one into a folder and sync, or eight at a time into a bucket; hash each file."""

    def local(path: Path) -> str:
        assert isinstance(target, Path)
        shutil.copyfile(path, target / path.name)
        return digest(path)

    def remote(path: Path) -> str:
        fs.put_file(str(path), f"{target}/{path.name}")
        return digest(path)

    paths = sorted(source.iterdir())
    if isinstance(target, Path):
        target.mkdir()
        hashes = [local(path) for path in paths]
        os.sync()
    else:
        import s3fs

        fs = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        with ThreadPoolExecutor(_THREADS) as pool:
            hashes = list(pool.map(remote, paths))
    assert len(set(hashes)) == len(paths)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_files(folder: Path, random: np.random.Generator, sizes: list[int]) -> Path:
    """Write one file of random bytes for each size; return the folder."""
    folder.mkdir()
    for i, size in enumerate(sizes):
        (folder / f"{i:06d}").write_bytes(random.bytes(size))
    return folder


if __name__ == "__main__":
    main()
