"""Locality-sensitive hashing: candidate pairs of near samples, without comparing all with all.

Banding after Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3: a signature is cut into
bands, and two samples that agree in one whole band are candidates. Buckets and pairs are kept in files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels import sql
from mm_embed_kernels.sql import CellReader, parquet_table

# Each member of a bucket is paired with this many of those before it: small buckets are compared completely,
# and a bucket of a million copies costs at most eight comparisons for each.
NEIGHBOURS = 8
BATCH_ROWS = 16_384
_JOINED_ROWS = 64
ENTRY = pa.schema([("bucket", pa.uint64()), ("n", pa.int32())])
_ENTRY = np.dtype([("bucket", "<u8"), ("n", "<i4")])
# A power of two: the 12 million entries of a million texts make less than 200,000 in each part.
_PARTS = 64
PAIR = pa.schema([("a", pa.int32()), ("b", pa.int32())])
_MIX = np.uint64(0x9E3779B97F4A7C15)


def band_rows(similarity: float, size: int, recall: float = 0.99) -> int:
    """Return the longest bands, in values, with which two sets of a similarity share a bucket.

    Args:
        similarity: Jaccard similarity of the two sets.
        size: values of a MinHash signature.
        recall: least probability that the two sets share a bucket.
    """
    fitting = [rows for rows in range(1, size + 1) if 1 - (1 - similarity**rows) ** (size // rows) >= recall]
    return max(fitting, default=1)


def buckets(signatures: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """Hash each band of each signature, uint64 [n, size // rows]; bands at two positions share no bucket.

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


def byte_buckets(hashes: np.ndarray[Any, Any], distance: int) -> np.ndarray[Any, Any]:
    """Return buckets of 64-bit hashes, uint64 [n, bands]; two that differ in up to `distance` bits share one.

    By the pigeonhole principle all but `distance` of their eight bytes are equal; there is a band for each
    choice of equal bytes (the chunks of Norouzi, Punjani and Fleet, "Fast search in Hamming space with
    multi-index hashing", 2012). A band without any set bit says nothing, and has bucket 0.

    Args:
        hashes: uint64 [n].
        distance: 0 to 7.
    """
    parts = hashes.astype("<u8")[:, None].view(np.uint8)
    chosen = list(combinations(range(8), 8 - distance))
    packed = np.zeros((len(hashes), len(chosen)), np.uint64)
    for band, equal in enumerate(chosen):
        for byte in equal:
            packed[:, band] = (packed[:, band] << np.uint64(8)) | parts[:, byte]
    return np.where(packed == 0, np.uint64(0), buckets(packed, 1))


def entries(numbers: np.ndarray[Any, Any], hashed: np.ndarray[Any, Any]) -> pa.RecordBatch:
    """Return numbers of samples (int [n]) and their buckets (uint64 [n, bands]) as rows of `ENTRY`."""
    return pa.record_batch(
        [hashed.reshape(-1), np.repeat(numbers, hashed.shape[1]).astype(np.int32)], schema=ENTRY
    )


def sparse_entries(numbers: np.ndarray[Any, Any], hashed: np.ndarray[Any, Any]) -> pa.RecordBatch:
    """Return numbers of samples (int [n]) and their buckets (uint64 [n, bands]), but 0, once as `ENTRY`s."""
    hashed = np.sort(hashed, axis=1)
    first = hashed != 0
    first[:, 1:] &= hashed[:, 1:] != hashed[:, :-1]
    return pa.record_batch(
        [hashed[first], np.repeat(numbers, first.sum(axis=1)).astype(np.int32)], schema=ENTRY
    )


def candidates(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatchReader:
    """Stream the pairs of samples that share a bucket as rows of `PAIR`, a < b; a pair may be repeated.

    Args:
        batches: rows of `ENTRY`.
    """

    def pairs() -> Iterator[pa.RecordBatch]:
        with tempfile.TemporaryDirectory(prefix="mm-buckets-") as folder:
            for path in _partition(batches, Path(folder)):
                rows = np.fromfile(path, _ENTRY)
                order = np.lexsort((rows["n"], rows["bucket"]))
                bucket, n = rows["bucket"][order], rows["n"][order]
                for step in range(1, min(NEIGHBOURS, len(rows) - 1) + 1):
                    hits = np.flatnonzero(bucket[step:] == bucket[:-step])
                    if not len(hits):
                        # No bucket is longer than this step, so that a longer step has no pairs either.
                        break
                    yield pa.record_batch([n[hits], n[hits + step]], schema=PAIR)

    return pa.RecordBatchReader.from_batches(PAIR, pairs())


def _partition(batches: Iterable[pa.RecordBatch], folder: Path) -> list[Path]:
    """Write the entries to files that each hold some buckets completely and can be sorted in memory."""
    paths = [folder / str(part) for part in range(_PARTS)]
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("wb")) for path in paths]
        for batch in batches:
            rows = np.empty(batch.num_rows, _ENTRY)
            rows["bucket"], rows["n"] = batch["bucket"].to_numpy(), batch["n"].to_numpy()
            # NumPy sorts bytes by counting.
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


def candidate_pairs(
    batches: Iterable[pa.RecordBatch],
    read: CellReader,
    columns: list[str],
    least: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None,
    survey: Callable[[Iterator[pa.RecordBatch]], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream the candidates, each pair once: ``a``, ``b``, and each column to compare as ``x_`` and ``y_``.

    Few samples have a candidate, so the columns are stored for those alone.

    Args:
        batches: rows of `ENTRY`.
        read: streams columns of all samples and ``n``.
        columns: columns to compare.
        least: returns how many buckets the pairs of two arrays of samples must share, once all batches are
            read; by default one.
        survey: takes the columns of all samples that have a candidate, before the first pair.
    """
    with tempfile.TemporaryDirectory(prefix="mm-lsh-") as name:
        folder = Path(name)
        path = sql.save(
            "SELECT a, b, count(*) AS shared FROM pairs GROUP BY a, b",
            folder / "shared.parquet",
            pairs=candidates(batches),
        )
        if least is not None:
            path = _save_sharing(path, least, folder / "pairs.parquet")
        members = _save_members(read(columns), path, folder / "samples.parquet")
        if survey is not None:
            survey(pq.ParquetFile(members).iter_batches(columns=columns))
        pairs, samples = parquet_table(path), parquet_table(members)
        sides = ", ".join(f"{side}.{column} AS {side}_{column}" for side in "xy" for column in columns)
        statement = (
            f"SELECT p.a, p.b, {sides} FROM {pairs} p "
            f"JOIN {samples} x ON x.n = p.a JOIN {samples} y ON y.n = p.b"
        )
        with sql.query(statement) as joined:
            for batch in joined:
                # A fingerprint of ten minutes has 100 KB, as an object of Python once more.
                for start in range(0, batch.num_rows, _JOINED_ROWS):
                    yield batch.slice(start, _JOINED_ROWS)


def _save_sharing(
    pairs: Path,
    least: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], np.ndarray[Any, Any]],
    path: Path,
) -> Path:
    """Write the pairs that share enough buckets to a file."""
    source = pq.ParquetFile(pairs)
    with pq.ParquetWriter(path, source.schema_arrow, compression="lz4") as sink:
        for batch in source.iter_batches():
            needed = least(batch["a"].to_numpy(), batch["b"].to_numpy())
            sink.write_batch(batch.filter(pa.array(batch["shared"].to_numpy() >= needed)))
    return path


def _save_members(batches: pa.RecordBatchReader, pairs: Path, path: Path) -> Path:
    """Write the samples that occur in a file of pairs to a file."""
    paired = np.zeros(1, np.bool_)
    for batch in pq.ParquetFile(pairs).iter_batches():
        numbers = np.concatenate([batch["a"].to_numpy(), batch["b"].to_numpy()])
        # The last element represents all larger numbers.
        paired = np.pad(paired, (0, max(0, int(numbers.max(initial=0)) + 2 - len(paired))))
        paired[numbers] = True
    with pq.ParquetWriter(path, batches.schema, compression="lz4") as sink:
        for batch in batches:
            indices = np.minimum(batch["n"].to_numpy(), len(paired) - 1)
            sink.write_batch(batch.filter(pa.array(paired[indices])))
    return path
