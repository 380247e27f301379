"""Shards of WebDataset, with the index of Energon where it is asked for."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import yaml

from mm_embed_kernels.extras import explain_missing
from mm_resources.exports.base import Format, Request, Rows, Shard, class_numbers, label_columns
from mm_resources.retrieval.training_rows import is_vector
from mm_resources.storage.store import Store

# Names of Energon for splits; any other split has its own.
_SPLITS = {"validation": "val"}


class WebDataset(Format):
    """Tar shards of one split each, by the library ``webdataset``.

    The files of a row are ``KEY.json`` (columns), ``KEY.npy`` (vector, float32), ``KEY.cls`` (number of its
    class) and the medium, such as ``KEY.jpg``; of several modalities ``KEY.image.jpg``, ``KEY.image.npy`` ...
    """

    name, suffix = "webdataset", ".tar"
    packages = ("webdataset",)
    by_split = True
    options = ("energon",)

    def write(self, rows: Iterable[Rows], sink: BinaryIO, request: Request) -> Any:
        with explain_missing("the export format webdataset"):
            from webdataset.writer import TarWriter

        offsets = []
        # A time of its own in each file would make other bytes of the same rows.
        with TarWriter(sink, mtime=0, encoder=False, compress=False) as out:
            for each in rows:
                for sample in _samples(each, request):
                    offsets.append(out.tarstream.offset)
                    out.write(sample)
            end = out.tarstream.offset
        return [*offsets, end] if request.options.get("energon") else None

    def finish(self, request: Request, shards: list[Shard], folder: Store) -> None:
        if not request.options.get("energon"):
            return
        parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for shard in shards:
            parts.setdefault(_SPLITS.get(shard.split, shard.split), []).append(shard.name)
            folder.write(f"{shard.name}.idx", struct.pack(f"<{len(shard.notes)}Q", *shard.notes))
        counts = {"energon_version": None, "shard_counts": {shard.name: shard.rows for shard in shards}}
        folder.write(".nv-meta/.info.json", json.dumps(counts, indent=1).encode())
        folder.write(".nv-meta/split.yaml", yaml.safe_dump({"exclude": [], "split_parts": parts}).encode())
        kind = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
        folder.write(".nv-meta/dataset.yaml", yaml.safe_dump(kind, sort_keys=False).encode())


def _samples(rows: Rows, request: Request) -> Iterable[dict[str, Any]]:
    names = [name for name in rows.table.column_names if not is_vector(name)]
    vectors = [name for name in rows.table.column_names if is_vector(name)]
    key = next(name for name in names if name.endswith("feature_id"))
    labels = {
        name: class_numbers(request, rows.table[name].to_pylist())
        for name in (label_columns(names) if request.classes else ())
    }
    for i, row in enumerate(rows.table.to_pylist()):
        plain = {name: row[name] for name in names}
        sample: dict[str, Any] = {"__key__": row[key]}
        sample["json"] = json.dumps(plain, default=str, ensure_ascii=False).encode()
        for name in vectors:
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(row[name], np.float32))
            sample[_file(name, "vector", "npy")] = buffer.getvalue()
        for name, numbers in labels.items():
            if numbers[i] is not None:
                sample[_file(name, "label", "cls")] = str(numbers[i]).encode()
        for name, media in rows.media.items():
            sample[_file(name, "media", media[i].suffix)] = media[i].data
        yield sample


def _file(column: str, ending: str, suffix: str) -> str:
    """Return a file's name behind the key: ``npy`` of ``vector``, ``image.npy`` of ``image__vector``."""
    modality = column.removesuffix(ending).removesuffix("__")
    return f"{modality}.{suffix}" if modality else suffix
