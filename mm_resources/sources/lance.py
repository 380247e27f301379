"""Lance datasets: rows of the version that was current when they were listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources.base import Listed
from mm_resources.sources.rows import Batches, RowFile
from mm_resources.storage import lance_datasets

# Rows of one batch, of bytes and of texts.
_BYTES_ROWS, _TEXT_ROWS = 64, 1_024
# Rows that are read together when one is read again: the length of a batch of the fetch.
_GROUP = 8_192


class LanceRows(RowFile):
    """Rows of one dataset, local or remote (``uri``); columns of Lance's blob encoding are read as bytes."""

    name = "lance"
    endings = (".lance",)

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is not None and spec.uri.lower().rstrip("/").endswith(cls.endings)

    def _tables(self) -> Iterator[Listed]:
        uri = self.spec.uri.rstrip("/")
        dataset = _open(uri)
        yield Listed(key=uri.rpartition("/")[2], uri=uri, tag=_tag(dataset, dataset.version) or "")

    def columns(self, uri: str) -> pa.Schema:
        return _open(uri).schema

    def version(self, uri: str) -> str:
        return str(_open(uri).version)

    def batches(
        self, uri: str, columns: list[str] | None, row: int | None = None, version: str = ""
    ) -> Batches:
        try:
            dataset = _open(uri, int(version) if version else None)
        except (OSError, ValueError, UserError) as error:
            raise SampleError(
                "source_changed", f"{uri} was listed at version {version}, which is gone: {error}"
            ) from None
        rows = _BYTES_ROWS if self.mapping.bytes else _TEXT_ROWS
        window = {} if row is None else {"offset": row, "limit": _GROUP}
        first = row or 0
        scanner = dataset.scanner(
            columns=columns, batch_size=rows, batch_readahead=2, blob_handling="all_binary", **window
        )
        for batch in scanner.to_batches():
            yield first, batch
            first += batch.num_rows

    def tag(self, uri: str, locator: str) -> str | None:
        if self.mapping.url:
            return super().tag(uri, locator)
        try:
            return _tag(_open(uri), int(locator.partition("@")[2]))
        except (OSError, ValueError, UserError):
            return None


def _open(uri: str, version: int | None = None) -> Any:
    dataset = lance_datasets.open_dataset(uri, version)
    if dataset is None:
        raise UserError(
            f"{uri} does not exist, or is no Lance dataset" + (f" of version {version}" if version else "")
        )
    return dataset


def _tag(dataset: Any, version: int) -> str | None:
    """Return the version with its time of writing: the versions of a recreated dataset start at 1 again."""
    for info in dataset.versions():
        if info["version"] == version:
            return f"{version}-{info['timestamp'].isoformat()}"
    return None
