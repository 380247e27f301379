"""Export of a training set: shards planned by their bytes, written in parallel, each once."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import require_installed
from mm_resources.exports.base import Format, Medium, Request, Rows, Shard, formats
from mm_resources.exports.folder import EXPORT, SAMPLES, ExportFolder
from mm_resources.exports.media import MediaReader
from mm_resources.exports.plan import PlannedShard, plan_shards
from mm_resources.retrieval.arguments import require_choice, require_number
from mm_resources.retrieval.mixture_rows import DrawnReader
from mm_resources.retrieval.training_rows import RowReader
from mm_resources.retrieval.training_set import TrainingSet

SHARD_BYTES = 512 << 20
MEDIA = ("whole", "segments")
# Rows of one read, and bytes of media in memory at once beside a single larger one.
_READ_ROWS, _READ_BYTES = 8_192, 64 << 20
_PLACES = ("content_hash", "span", "mime", "text")
# In `_samples.parquet`.
_SAMPLE = ("feature_id", "sample_id", "content_hash")


def export(
    training_set: TrainingSet,
    form: str,
    target: str | os.PathLike[str],
    media: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 4,
    **options: Any,
) -> int:
    """Write a training set into a new folder; return the number of rows.

    The folder has the manifest (``_manifest.json``: `FeatureStore.training_set` returns the same rows), its
    shards with their hashes (``_export.json``), and the samples in each (``_samples.parquet``). The same
    call completes an export that was broken off; complete shards are not written again, and all have the
    bytes of an uninterrupted one.

    Args:
        form: format, see `formats`.
        target: the new folder, or a URL of fsspec's.
        media: ``whole``, for the bytes of each row's sample; ``segments``, for the part of it that the row
            is, cut anew; None for no media.
        shard_bytes: bytes from which on a shard is full.
        workers: shards written at once.
        options: of the format, such as ``energon=True`` for ``webdataset``.

    Raises:
        UserError: for an unknown format or option, a folder that exists, or a set without rows.
        SampleError: for the first medium that cannot be read or cut.
        RemovedRows: when rows were forgotten since the set was made.
    """
    known = formats()
    if form not in known:
        raise UserError(f"{form!r} is no export format; there are: {', '.join(known)}")
    writer = known[form]
    if wrong := [name for name in options if name not in writer.options]:
        raise UserError(f"{wrong[0]} is no option of {form}; it has: {', '.join(writer.options) or 'none'}")
    if media is not None:
        require_choice("media", media, MEDIA)
    require_number("shard_bytes", shard_bytes, 1)
    require_number("workers", workers, 1)
    require_installed(f"the export format {form}", writer.packages)
    if not training_set.manifest["rows"]:
        raise UserError(
            f"no rows of {training_set.manifest['dataset_version']} pass the filter, "
            "so there is nothing to export"
        )
    request = _request(training_set, media, options)
    plan = {
        "format": form, "media": media, "shard_bytes": shard_bytes, "options": options,
        "digest": training_set.manifest["digest"], "columns": request.schema.names,
    }  # fmt: skip
    folder = ExportFolder(os.fspath(target), plan)
    return _Export(writer, request, folder, workers).run(plan)


def _request(training_set: TrainingSet, media: str | None, options: dict[str, Any]) -> Request:
    kinds = training_set.media_kinds() if media else {}
    return Request(training_set, training_set.schema(), tuple(kinds), kinds, media == "whole", options)


class _Export:
    """One export under way."""

    def __init__(self, writer: Format, request: Request, folder: ExportFolder, workers: int) -> None:
        self.writer, self.request, self.folder, self.workers = writer, request, folder, workers
        rows = request.training_set.reader(media=bool(request.media))
        self.reader: RowReader | DrawnReader = rows
        more = _PLACES if request.media else ()
        self.rows = rows.extend(more)

    def run(self, plan: dict[str, Any]) -> int:
        """Write what is missing, then what describes it; return the rows."""
        planned = plan_shards(self.reader, self.request, self.writer.by_split, plan["shard_bytes"])
        done = self.folder.done()
        missing = [shard for shard in planned if self._file(shard) not in done]
        with ThreadPoolExecutor(self.workers, "export") as pool:
            tasks = [pool.submit(self._write, shard) for shard in missing]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
            for task in tasks:
                if not task.cancelled():
                    task.result()
        done = self.folder.done()
        shards = [done[self._file(shard)] for shard in planned]
        self.writer.finish(self.request, shards, self.folder.store)
        self._write_samples(planned)
        described = {
            **plan,
            "shards": [{k: v for k, v in asdict(each).items() if k != "notes"} for each in shards],
        }
        self.folder.store.write(EXPORT, json.dumps(described, indent=1, sort_keys=True).encode())
        self.folder.complete(self.request.training_set.manifest)
        return sum(shard.rows for shard in shards)

    def _file(self, shard: PlannedShard) -> str:
        return f"{shard.name}{self.writer.suffix}"

    def _write(self, shard: PlannedShard) -> None:
        name, store = self._file(shard), self.folder.store
        notes = self.writer.write_shard(self._stream(shard.numbers), name, store, self.request)
        if notes is not None:
            self.folder.record(Shard(name, shard.split, len(shard.numbers), 0, "", notes))
            return
        with store.writer(name) as stream:
            sink = _HashedSink(stream)
            notes = self.writer.write(self._stream(shard.numbers), sink, self.request)  # type: ignore[arg-type]
        size, digest = sink.tell(), sink.digest.hexdigest()
        self.folder.record(Shard(name, shard.split, len(shard.numbers), size, digest, notes))

    def _stream(self, numbers: np.ndarray[Any, Any]) -> Iterator[Rows]:
        """Stream rows, as many at once as their media allow."""
        request = self.request
        for start in range(0, len(numbers), _READ_ROWS):
            table = self.rows(numbers[start : start + _READ_ROWS])
            columns = table.select(request.schema.names).cast(request.schema)
            if not request.media:
                yield Rows(columns, {})
                continue
            begin = 0
            for end in _ends(table, request.media):
                part = table.slice(begin, end - begin)
                yield Rows(columns.slice(begin, end - begin), self._media(part))
                begin = end

    def _media(self, table: pa.Table) -> dict[str, list[Medium]]:
        blobs = self.request.training_set.catalog.blobs
        return {
            name: MediaReader(blobs, kind, self.request.whole).read(table, name.removesuffix("media"))
            for name, kind in self.request.kinds.items()
        }

    def _write_samples(self, planned: list[PlannedShard]) -> None:
        """Write which samples are in which file, so that what is forgotten later is found."""
        narrow = self.reader.select(_SAMPLE)
        schema = pa.schema([("file", pa.string()), *((name, pa.string()) for name in _SAMPLE)])
        with self.folder.store.writer(SAMPLES) as sink, pq.ParquetWriter(sink, schema) as out:
            for shard in planned:
                for start in range(0, len(shard.numbers), _READ_ROWS):
                    table = narrow(shard.numbers[start : start + _READ_ROWS])
                    prefixes = [
                        n.removesuffix("feature_id") for n in table.column_names if n.endswith("feature_id")
                    ]
                    for prefix in prefixes:
                        files = pa.array([self._file(shard)] * table.num_rows)
                        out.write_table(
                            pa.table([files, *(table[f"{prefix}{name}"] for name in _SAMPLE)], schema=schema)
                        )


def _ends(table: pa.Table, media: tuple[str, ...]) -> Iterator[int]:
    """Yield where the parts of a table end whose media fit into memory."""
    sizes = np.zeros(table.num_rows, np.int64)
    for name in media:
        sizes += table[name].combine_chunks().field("size").to_numpy(zero_copy_only=False)
    total = 0
    for i, size in enumerate(sizes.tolist()):
        if total and total + size > _READ_BYTES:
            yield i
            total = 0
        total += size
    yield table.num_rows


class _HashedSink(io.RawIOBase):
    """A file that hashes what it hands on; whoever opened the stream behind it closes that."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._written, self.digest = stream, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self._stream.write(view)
        self._written += len(view)
        return len(view)

    def tell(self) -> int:
        return self._written

    def writable(self) -> bool:
        return True
