"""Hugging Face dataset folders, by ``save_to_disk`` (Arrow) or in Parquet shards; single ``.arrow`` files."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import escape_glob
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.http_client import is_web
from mm_resources.objects.opener import ObjectOpener
from mm_resources.sources.arrow_bodies import require_sound_bodies
from mm_resources.sources.base import Listed, sources
from mm_resources.sources.files import Files
from mm_resources.sources.globs import glob_root
from mm_resources.sources.records import RecordFile
from mm_resources.sources.rows import Batches, RowFile, parquet_batches, parquet_schema

# Largest state.json, which names the files of a dataset.
_STATE_BYTES = 16 << 20


class HuggingFace(RowFile):
    """Rows of Hugging Face datasets.

    ``uri`` is the folder of a dataset, of a dataset dictionary (all splits), or of one split; or it names
    ``.arrow`` files.
    """

    name = "huggingface"
    endings = (".arrow",)

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        if spec.record is None or super().accepts(spec):
            return spec.record is not None
        others = [kind for kind in sources().values() if issubclass(kind, RecordFile) and kind is not cls]
        return not any(kind.accepts(spec) for kind in others) and _is_folder(spec)

    def _tables(self) -> Iterator[Listed]:
        spec = self.spec.model_copy(update={"record": None, "format": None})
        if not super().accepts(self.spec):
            root, _ = glob_root(spec.uri)
            spec = spec.model_copy(update={"uri": f"{escape_glob(root)}/**/*.{{arrow,parquet}}"})
        return _DataFiles(spec, {}).list()

    def columns(self, uri: str) -> pa.Schema:
        if uri.lower().endswith(".parquet"):
            return parquet_schema(self.opener, uri)
        with ExitStack() as closing:
            return _open_arrow(self.opener, uri, closing).schema

    def batches(
        self,
        uri: str,
        columns: list[str] | None,
        row: int | None = None,
        version: str = "",  # noqa: ARG002 - a folder has none
    ) -> Batches:
        if uri.lower().endswith(".parquet"):
            return parquet_batches(self.opener, uri, columns, row)
        return _arrow_batches(self.opener, uri, columns)


class _DataFiles(Files):
    """The files that hold the rows, without the files that ``map`` has cached beside them."""

    name = ""  # not a kind of its own
    # Of the last folder: the files that its ``state.json`` names.
    _state: tuple[str, set[str] | None] = ("", None)

    def _walk(self) -> Iterator[Listed]:
        return (
            item
            for item in super()._walk()
            if not item.uri.lower().endswith(".arrow") or self._is_data_file(item.uri)
        )

    def _is_data_file(self, uri: str) -> bool:
        folder, _, name = uri.rpartition("/")
        if self._state[0] != folder:
            self._state = (folder, self._read_state(folder))
        names = self._state[1]
        return names is None or name in names

    def _read_state(self, folder: str) -> set[str] | None:
        """Return the files that a folder's ``state.json`` names; None where it has none."""
        try:
            with self.opener.open(f"{folder}/state.json") as stream:
                text = stream.read(_STATE_BYTES + 1)
            if len(text) > _STATE_BYTES:
                raise UserError(f"{folder}/state.json is larger than {_STATE_BYTES:,} bytes")
            state = json.loads(text)
            if state.get("_indices_files"):
                raise UserError(
                    f"{folder} holds a selection of rows; call flatten_indices() before save_to_disk()"
                )
            return {str(file["filename"]) for file in state["_data_files"]}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{folder}/state.json is none of Hugging Face's: {error!r}") from error


def _is_folder(spec: SourceSpec) -> bool:
    root, glob = glob_root(spec.uri)
    if glob is not None or is_web(root):
        return False
    if "://" not in root:
        return os.path.isdir(root)
    try:
        fs, path = ObjectOpener(spec.fetch).filesystem(root)
        return bool(fs.isdir(path))
    except (OSError, ImportError):
        return False


def _open_arrow(opener: ObjectOpener, uri: str, closing: ExitStack) -> Any:
    """Open an Arrow stream or file; a local one is memory-mapped."""
    file = closing.enter_context(opener.open(uri))
    if "://" in uri or not os.fstat(file.fileno()).st_size:
        stream = pa.PythonFile(file, "r")
    else:
        # The file that was opened, whatever its path names by now.
        stream = pa.BufferReader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    closing.enter_context(stream)
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(8 if is_file else 0)  # behind the mark of a file come the messages of a stream
    require_sound_bodies(stream, uri)
    stream.seek(0)
    return pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)


def _arrow_batches(opener: ObjectOpener, uri: str, columns: list[str] | None) -> Batches:
    """Yield the batches of an Arrow file, see `RowFile.batches`; the file is one group."""
    first = 0
    with ExitStack() as closing:
        reader = _open_arrow(opener, uri, closing)
        count = getattr(reader, "num_record_batches", None)
        for batch in reader if count is None else map(reader.get_batch, range(count)):
            batch = batch if columns is None else batch.select(columns)
            for column in batch.columns:
                # Arrow's reader does not check a file's offsets. A time out of its range is its row's error.
                column.validate(full=not pa.types.is_temporal(column.type))
            yield first, batch
            first += batch.num_rows
