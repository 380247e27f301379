"""Ingest throughput against copying plus hashing the same files, in alternated pairs: `python -m benchmarks.ingest`.

A ratio above 1 means that ingesting took longer than `cp` and `sha256sum` would. On S3 (the tests' server, a process on this
machine) the same files are sent with s3fs, eight at a time, and hashed, so that both sides share the server.
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

from benchmarks.ratios import Row, paired
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.runner import run_inline
from mm_resources.ingestion.fetch_kernel import FetchKernel
from mm_resources.sources import open_source
from mm_resources.storage.store import Store
from tests.s3 import BUCKET, S3

_THREADS = 8
_SMALL, _LARGE = 10_000, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=_SMALL, help="small files, of 2 to 62 KB")
    parser.add_argument("--large", type=int, default=_LARGE, help="large files, of 100 MB")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=("local", "s3"), default=["local", "s3"])
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files lie; by default the temporary folder"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="mm-ingest-") as folder:
        run(Path(folder), given.files, given.large, given.pairs, given.stores)


def rows(share: float) -> Iterator[Row]:
    """Into a local store, small files and large ones."""
    with tempfile.TemporaryDirectory(prefix="mm-ingest-") as scratch:
        folder = Path(scratch)
        files, large = max(100, round(_SMALL * share)), max(1, round(_LARGE * share))
        for (name, source), goal in zip(made(folder, files, large).items(), (0.8, 0.9), strict=True):
            measured(folder, source, "local")  # warms up
            yield paired(
                f"ingest, {name}",
                partial(ingested, folder, source),
                partial(copied, folder, source),
                goal=goal,
                sense=">=",
            )


def made(folder: Path, files: int, large: int) -> dict[str, Path]:
    """The small and the large files, by their description."""
    random = np.random.default_rng(0)
    return {
        f"{files:,} small files": write(
            folder / "small", random, [int(size) for size in random.integers(2_000, 62_000, files)]
        ),
        f"{large} files of 100 MiB": write(folder / "large", random, [100 << 20] * large),
    }


def run(folder: Path, files: int, large: int, pairs: int, stores: list[str]) -> None:
    """Make the files and print a ratio for each kind of file and store."""
    sets = made(folder, files, large)
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
                    ours, theirs = measured(folder, source, kind)
                    if pair:  # the first one warms up
                        ratios.append(ours / theirs)
                        rates.append(size / ours / 2**20)
                shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                rate = statistics.median(rates)
                print(
                    f"{name}, {kind}: ratio {statistics.median(ratios):.2f} (of {shown}), {rate:,.0f} MiB/s",
                    flush=True,
                )
    finally:
        server.kill()


def measured(folder: Path, source: Path, kind: str) -> tuple[float, float]:
    """Seconds of an ingest into an empty store, and of copying and hashing the same files."""
    return ingested(folder, source, kind), copied(folder, source, kind)


def ingested(folder: Path, source: Path, kind: str = "local") -> float:
    name = uuid4().hex
    root = str(folder / name) if kind == "local" else f"s3://{BUCKET}/{name}"
    try:
        return seconds(lambda: ingest(source, Store(root)))
    finally:
        _clear(folder, name)


def copied(folder: Path, source: Path, kind: str = "local") -> float:
    name = uuid4().hex
    target = folder / name if kind == "local" else f"s3://{BUCKET}/{name}"
    try:
        return seconds(lambda: copy(source, target))
    finally:
        _clear(folder, name)


def _clear(folder: Path, name: str) -> None:
    for left in (folder / name, folder / "s3" / BUCKET / name):
        shutil.rmtree(left, ignore_errors=True)


def seconds(work: Callable[[], None]) -> float:
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ingest(source: Path, store: Store) -> None:
    """All files through the fetch kernel, as a cell's ingest does in its own process."""
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
    """The same files, one by one into a folder and on the disk, or eight at a time into a bucket; each is hashed."""

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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write(folder: Path, random: np.random.Generator, sizes: list[int]) -> Path:
    folder.mkdir()
    for i, size in enumerate(sizes):
        (folder / f"{i:06d}").write_bytes(random.bytes(size))
    return folder


if __name__ == "__main__":
    main()
