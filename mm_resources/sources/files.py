"""Files by glob, on local disk or any fsspec file system, with labels of their folder or a side table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import filterfalse
from typing import Any, BinaryIO

from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.base import Listed, Source, Unmatched
from mm_resources.sources.globs import local_folder
from mm_resources.sources.side_tables import SideTableReader
from mm_resources.sources.walk import is_failed_folder, walk


class Files(Source):
    """Files of a folder, a glob or one path.

    ``uri`` is a file, a folder (everything below it) or a glob; its root is the longest prefix without a
    wildcard. Names that begin with a dot, and everything in folders of such names, are left out unless the
    glob names a dot.
    """

    name = "files"
    # Whether folders that are not entered are listed, as failed samples; an earlier source of the spec may
    # have named them.
    names_folders = True
    _table: SideTableReader | None = None

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is None and spec.track_of is None

    def __init__(self, spec: SourceSpec, schema: dict[str, str]) -> None:
        super().__init__(spec, schema)
        self.opener = ObjectOpener(spec.fetch, local_folder(spec.uri))

    def list(self) -> Iterator[Listed]:
        table = self._table = SideTableReader(self.spec, self.schema, self.opener, self.peeks)
        yield from table.refused
        if table.rows and not self.peeks:
            table.find_ambiguous_names(item.key for item in self._walk())
        for item in self._walk():
            if self.spec.label is not None:
                parts = (item.key if "/" in item.key else item.uri).rstrip("/").split("/")
                item.label = parts[-2] if len(parts) > 1 else None
            if item.error is None:
                table.join(item)
            yield item

    def unmatched(self) -> dict[str, Unmatched]:
        return self._table.unmatched() if self._table else {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def _walk(self) -> Iterator[Listed]:
        items = walk(self.spec.uri, self.opener, self.spec.exclude)
        return items if self.names_folders else filterfalse(is_failed_folder, items)

    def objects(self) -> Iterator[tuple[str, str]]:
        return ((item.uri, item.tag) for item in self._walk())

    def tag(self, uri: str, locator: str) -> str | None:
        return self.opener.tag(os.fsdecode(_path(locator)) or uri)

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        return self.opener.fetch(uri, _path(locator))

    def open(self, uri: str, locator: str) -> BinaryIO:
        """Open one sample as a seekable stream that the caller closes; raises as `fetch`."""
        return self.opener.open_sample(uri, _path(locator))


def _path(locator: str) -> bytes:
    """Return the path of a local file whose name is not UTF-8; empty for any other."""
    return bytes.fromhex(locator)
