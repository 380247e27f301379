"""A Lance dataset, with media as blobs that are read apart from the other columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, BinaryIO

import pyarrow as pa

from mm_resources.exports.base import Format, Request, Rows, Shard
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.store import Store

_TABLE = "rows.lance"
_BLOB = {b"lance-encoding:blob": b"true"}


class Lance(Format):
    """One Lance dataset, ``rows.lance``, whose ``take_blobs`` and ``read_blobs`` give the media.

    Each shard is a fragment. Their files have random names, so that an export that was broken off has the
    same rows in the same order, but not the same names.
    """

    name = "lance"

    def write(self, rows: Iterable[Rows], sink: BinaryIO, request: Request) -> Any:
        raise NotImplementedError  # a table has no files of its own

    def write_shard(self, rows: Iterable[Rows], name: str, folder: Store, request: Request) -> Any:  # noqa: ARG002
        from lance.fragment import write_fragments

        schema, uri = _schema(request), folder.uri(_TABLE)

        def batches() -> Iterator[pa.RecordBatch]:
            for each in rows:
                media = [
                    pa.array([medium.data for medium in each.media[column]], pa.large_binary())
                    for column in request.media
                ]
                yield from pa.table([*each.table.columns, *media], schema=schema).to_batches()

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        written = write_fragments(reader, uri, schema=schema, storage_options=lance_options(uri))
        return [fragment.to_json() for fragment in written]

    def finish(self, request: Request, shards: list[Shard], folder: Store) -> None:
        import lance

        uri = folder.uri(_TABLE)
        options = lance_options(uri)
        fragments = [
            lance.FragmentMetadata.from_json(json.dumps(each) if isinstance(each, dict) else each)
            for shard in shards
            for each in shard.notes
        ]
        dataset = lance.LanceDataset.commit(
            uri, lance.LanceOperation.Overwrite(_schema(request), fragments), storage_options=options
        )
        # Files of shards that were broken off.
        dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


def _schema(request: Request) -> pa.Schema:
    media = [pa.field(name, pa.large_binary(), metadata=_BLOB) for name in request.media]
    return pa.schema([*request.schema, *media])
