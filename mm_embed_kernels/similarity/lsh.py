"""Locality-sensitive hashing: who may be near whom, without comparing all with all.

Banding after Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3: a signature is cut into bands, and
who agrees in one whole band is a candidate. Buckets and pairs lie in files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels import sql
from mm_embed_kernels.sql import CellReader, stored

# Each member of a bucket meets so many of those before it: small buckets are compared whole, and one of a million copies
# costs no more than eight comparisons each.
NEIGHBOURS = 8
BATCH_ROWS = 16_384
ENTRY = pa.schema([("bucket", pa.uint64()), ("n", pa.int32())])
_ENTRY = np.dtype([("bucket", "<u8"), ("n", "<i4")])
# Entries of a million texts are 12 million: less than 200,000 in each part, at a power of two.
_PARTS = 64
PAIR = pa.schema([("a", pa.int32()), ("b", pa.int32())])
_MIX = np.uint64(0x9E3779B97F4A7C15)


def band_rows(similarity: float, size: int, recall: float = 0.99) -> int:
    """The longest bands of a MinHash signature of `size` values with which two sets of that similarity still meet."""
    fitting = [rows for rows in range(1, size + 1) if 1 - (1 - similarity**rows) ** (size // rows) >= recall]
    return max(fitting, default=1)


def buckets(signatures: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """A number for each band of each signature, uint64 [n, size // rows]; the same number in the same band only.

    Args:
        signatures: unsigned integers [n, size].
        rows: values in a band.
    """
    bands = signatures.shape[1] // rows
    cut = signatures[:, : bands * rows].astype(np.uint64).reshape(len(signatures), bands, rows)
    mixed = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64) * _MIX, cut.shape[:2]).copy()
    for row in range(rows):
        mixed = (mixed ^ cut[:, :, row]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return mixed


def shared_bytes(hashes: np.ndarray[Any, Any], distance: int) -> np.ndarray[Any, Any]:
    """Buckets of 64-bit hashes, uint64 [n, bands]: two that differ in up to `distance` bits, at most 7, share one.

    By the pigeonhole principle: of their eight bytes, all but `distance` are equal; there is a band for each choice of bytes
    (the chunks of Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", 2012).

    Args:
        hashes: uint64 [n].
    """
    parts = hashes.astype("<u8")[:, None].view(np.uint8)
    chosen = list(combinations(range(8), 8 - distance))
    packed = np.zeros((len(hashes), len(chosen)), np.uint64)
    for band, places in enumerate(chosen):
        for place in places:
            packed[:, band] = (packed[:, band] << np.uint64(8)) | parts[:, place]
    return buckets(packed, 1)


def entries(numbers: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> pa.RecordBatch:
    """Samples (int32 [n]) and their buckets (uint64 [n, bands]) as rows of `ENTRY`."""
    return pa.record_batch(
        [found.reshape(-1), np.repeat(numbers, found.shape[1]).astype(np.int32)], schema=ENTRY
    )


def candidates(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatchReader:
    """Pairs of samples that share a bucket, as rows of `PAIR` with a < b; a pair may come more than once.

    Args:
        batches: rows of `ENTRY`, by ascending ``n``.
    """

    def pairs() -> Iterator[pa.RecordBatch]:
        with tempfile.TemporaryDirectory(prefix="mm-buckets-") as folder:
            for path in _parted(batches, Path(folder)):
                rows = np.fromfile(path, _ENTRY)
                order = np.argsort(np.ascontiguousarray(rows["bucket"]), kind="stable")
                bucket, n = rows["bucket"][order], rows["n"][order]
                for step in range(1, min(NEIGHBOURS, len(rows) - 1) + 1):
                    place = np.flatnonzero(bucket[step:] == bucket[:-step])
                    if not len(place):  # who has no member of its bucket so far behind it has none farther
                        break
                    yield pa.record_batch([n[place], n[place + step]], schema=PAIR)

    return pa.RecordBatchReader.from_batches(PAIR, pairs())


def _parted(batches: Iterable[pa.RecordBatch], folder: Path) -> list[Path]:
    """The entries in files, each of which has all of some of the buckets, and is small enough to be sorted in memory."""
    paths = [folder / str(part) for part in range(_PARTS)]
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("wb")) for path in paths]
        for batch in batches:
            rows = np.empty(batch.num_rows, _ENTRY)
            rows["bucket"], rows["n"] = batch["bucket"].to_numpy(), batch["n"].to_numpy()
            # Bytes are sorted by counting.
            part = ((batch["bucket"].to_numpy() * _MIX) >> np.uint64(64 - _PARTS.bit_length() + 1)).astype(
                np.uint8
            )
            rows, edges = (
                rows[np.argsort(part, kind="stable")],
                np.concatenate([[0], np.cumsum(np.bincount(part, minlength=_PARTS))]),
            )
            for file, start, end in zip(files, edges[:-1], edges[1:], strict=True):
                file.write(rows[start:end].tobytes())
    return paths


def compared(
    batches: Iterable[pa.RecordBatch], read: CellReader, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    """Candidates, each pair once, with what is to be compared: ``a``, ``b``, and each column as ``x_`` and ``y_``.

    Few samples have a candidate: the columns are kept of those alone.

    Args:
        batches: rows of `ENTRY`.
        read: streams columns of all samples, and ``n``.
    """
    with tempfile.TemporaryDirectory(prefix="mm-lsh-") as name:
        folder = Path(name)
        path = sql.save(
            "SELECT DISTINCT a, b FROM pairs", folder / "pairs.parquet", pairs=candidates(batches)
        )
        pairs, samples = stored(path), stored(_chosen(read(columns), path, folder / "samples.parquet"))
        sides = ", ".join(f"{side}.{column} AS {side}_{column}" for side in "xy" for column in columns)
        statement = f"SELECT p.a, p.b, {sides} FROM {pairs} p JOIN {samples} x ON x.n = p.a JOIN {samples} y ON y.n = p.b"
        with sql.query(statement) as found:
            yield from found


def _chosen(batches: pa.RecordBatchReader, pairs: Path, path: Path) -> Path:
    """The samples that a file of pairs names, in a file."""
    wanted = np.zeros(1, np.bool_)
    for batch in pq.ParquetFile(pairs).iter_batches():
        numbers = np.concatenate([batch["a"].to_numpy(), batch["b"].to_numpy()])
        # One place more, for all that are beyond.
        wanted = np.pad(wanted, (0, max(0, int(numbers.max(initial=0)) + 2 - len(wanted))))
        wanted[numbers] = True
    with pq.ParquetWriter(path, batches.schema, compression="lz4") as sink:
        for batch in batches:
            places = np.minimum(batch["n"].to_numpy(), len(wanted) - 1)
            sink.write_batch(batch.filter(pa.array(wanted[places])))
    return path
