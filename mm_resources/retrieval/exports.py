"""Exports of a training set: folders in the formats that other tools read, streamed, each from a pinned set.

A folder appears under its name when it is whole. ``_manifest.json`` in it brings the same rows back from the store.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.training_set import TrainingSet

SHARD_ROWS = 100_000
# Tar members cost a header each, so that a shard of few rows is large enough already.
TAR_ROWS = 10_000


def export(chosen: TrainingSet, form: str, target: Path) -> int:
    """Write a training set into a new folder; rows written.

    Args:
        form: ``parquet``, ``webdataset``, ``huggingface`` or ``croissant``.

    Raises:
        UserError: for an unknown form, a folder that exists, or a set without rows.
    """
    if form not in FORMS:
        raise UserError(f"{form!r} is no export format; there are: {', '.join(FORMS)}")
    if target.exists():
        raise UserError(f"{target} exists; an export makes a new folder")
    if not chosen.manifest["rows"]:
        raise UserError(
            f"nothing of {chosen.manifest['dataset_version']} fits the filter, so there is nothing to export"
        )
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        rows = FORMS[form](chosen, part)
        (part / "_manifest.json").write_text(json.dumps(chosen.manifest, indent=1))
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return rows


def _parquet(chosen: TrainingSet, folder: Path) -> int:
    return sum(
        rows for _, rows in _shards(chosen.stream(), lambda number: folder / f"part-{number:05d}.parquet")
    )


def _shards(batches: Iterator[pa.RecordBatch], name: Callable[[int], Path]) -> Iterator[tuple[Path, int]]:
    """Parquet files of `SHARD_ROWS`, as they are done, with their rows."""
    writer, rows, number = None, 0, 0
    path = name(0)
    for batch in batches:
        if writer is None:
            path = name(number)
            writer = pq.ParquetWriter(path, batch.schema)
        writer.write_batch(batch)
        rows += batch.num_rows
        if rows >= SHARD_ROWS:
            writer.close()
            yield path, rows
            writer, rows, number = None, 0, number + 1
    if writer is not None:
        writer.close()
        yield path, rows


def _webdataset(chosen: TrainingSet, folder: Path) -> int:
    """Shards of ``KEY.json`` (the columns) and, for each vector, ``KEY.npy`` or ``KEY.COLUMN.npy``."""
    rows = 0
    with ExitStack() as stack:
        archive: Any = None
        for batch in chosen.stream():
            for row in pa.Table.from_batches([batch]).to_pylist():
                if rows % TAR_ROWS == 0:
                    stack.close()
                    archive = stack.enter_context(_tar(folder / f"shard-{rows // TAR_ROWS:06d}.tar"))
                _add_row(archive, row)
                rows += 1
    return rows


def _tar(path: Path) -> AbstractContextManager[tarfile.TarFile]:
    return tarfile.open(path, "w")


def _add_row(archive: tarfile.TarFile, row: dict[str, Any]) -> None:
    key = next(value for name, value in row.items() if name.endswith("feature_id"))
    plain = {}
    for name, value in row.items():
        if name == "vector" or name.endswith("__vector"):
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(value, np.float32))
            _add(archive, f"{key}.npy" if name == "vector" else f"{key}.{name}.npy", buffer.getvalue())
        else:
            plain[name] = value
    _add(archive, f"{key}.json", json.dumps(plain, default=str, ensure_ascii=False).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _huggingface(chosen: TrainingSet, folder: Path) -> int:
    """A folder that ``datasets.load_dataset(FOLDER)`` reads, with the splits of the set as its splits."""
    (folder / "data").mkdir()
    rows, files = 0, []
    for split in chosen.splits():
        part = chosen.of_split(split)
        for path, count in _shards(
            part.stream(), lambda number, split=split: folder / "data" / f"{split}-{number:05d}.parquet"
        ):  # type: ignore[misc]
            files.append((split, path.name))
            rows += count
    configs = "".join(
        f"  - {{split: {split}, path: data/{split}-*.parquet}}\n"
        for split in dict.fromkeys(split for split, _ in files)
    )
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{configs}---\n\n"
        f"{chosen.manifest['dataset_version']}: {rows:,} features; _manifest.json names the tables that they come from.\n"
    )
    return rows


def _croissant(chosen: TrainingSet, folder: Path) -> int:
    """Parquet files, and ``croissant.json`` that describes them (MLCommons Croissant 1.0)."""
    shards = list(_shards(chosen.stream(), lambda number: folder / f"part-{number:05d}.parquet"))
    schema = pq.read_schema(shards[0][0])
    (folder / "croissant.json").write_text(
        json.dumps(_metadata(chosen, schema, [path for path, _ in shards]), indent=1)
    )
    return sum(rows for _, rows in shards)


def _metadata(chosen: TrainingSet, schema: pa.Schema, files: list[Path]) -> dict[str, Any]:
    name = chosen.manifest["dataset_version"].replace("@", "-")
    objects = [
        {"@type": "cr:FileObject", "@id": path.name, "name": path.name, "contentUrl": path.name,
         "encodingFormat": "application/x-parquet", "sha256": _sha256(path)}
        for path in files
    ]  # fmt: skip
    parts = {
        "@type": "cr:FileSet",
        "@id": "parts",
        "name": "parts",
        "encodingFormat": "application/x-parquet",
        "includes": "*.parquet",
    }
    fields = [_field(item) for item in schema]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"Features of {chosen.manifest['dataset_version']}",
        "version": "1.0.0",
        "url": chosen.catalog.store.uri(f"features/{chosen.manifest['tables'][0]['table']}.lance"),
        "datePublished": chosen.published_at[:10],
        "distribution": [*objects, parts],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "features", "name": "features", "field": fields}],
    }


def _field(item: pa.Field) -> dict[str, Any]:
    listed = pa.types.is_list(item.type) or pa.types.is_fixed_size_list(item.type)
    kind = item.type.value_type if listed else item.type
    found = {
        "@type": "cr:Field",
        "@id": f"features/{item.name}",
        "name": item.name,
        "dataType": next((name for test, name in _TYPES if test(kind)), "sc:Text"),
        "source": {"fileSet": {"@id": "parts"}, "extract": {"column": item.name}},
    }
    return {**found, "repeated": True} if listed else found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_TYPES = [
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_timestamp, "sc:DateTime"),
]
# As the specification prints it.
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField",
    "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source",
    "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
FORMS = {"parquet": _parquet, "webdataset": _webdataset, "huggingface": _huggingface, "croissant": _croissant}
