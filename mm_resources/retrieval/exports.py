"""Exports of a training set: folders in the formats of other tools, written as a stream.

A folder appears under its name when it is complete. Its ``_manifest.json`` is the manifest of the training
set, for which `FeatureStore.training_set` returns the same rows.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import file_hash
from mm_resources.retrieval.training_set import TrainingSet

SHARD_ROWS = 100_000
# Each tar member has a header and padding, so shards of fewer rows are large enough.
TAR_ROWS = 10_000


def export(training_set: TrainingSet, form: str, target: Path) -> int:
    """Write a training set into a new folder; return the number of rows.

    Args:
        form: format: ``parquet``, ``webdataset``, ``huggingface`` or ``croissant``.
        target: the new folder.

    Raises:
        UserError: for an unknown format, a folder that exists, or a set without rows.
    """
    if form not in FORMS:
        raise UserError(f"{form!r} is no export format; there are: {', '.join(FORMS)}")
    if target.exists():
        raise UserError(f"{target} exists; an export makes a new folder")
    if not training_set.manifest["rows"]:
        raise UserError(
            f"no rows of {training_set.manifest['dataset_version']} pass the filter, "
            "so there is nothing to export"
        )
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        rows = FORMS[form](training_set, part)
        (part / "_manifest.json").write_text(json.dumps(training_set.manifest, indent=1))
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return rows


def _parquet(training_set: TrainingSet, folder: Path) -> int:
    """Write Parquet files."""
    return sum(rows for _, rows in _shards(training_set.stream(), folder, "part"))


def _shards(batches: Iterator[pa.RecordBatch], folder: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Write Parquet files of `SHARD_ROWS` rows each; yield each file, when complete, with its row count."""
    writer, rows, number = None, 0, 0
    path = folder
    for batch in batches:
        if writer is None:
            path = folder / f"{name}-{number:05d}.parquet"
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


def _webdataset(training_set: TrainingSet, folder: Path) -> int:
    """Write tar shards of ``KEY.json`` (columns) and, for each vector, ``KEY.npy`` or ``KEY.COLUMN.npy``."""
    rows = 0
    with ExitStack() as stack:
        archive: Any = None
        for batch in training_set.stream():
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


def _huggingface(training_set: TrainingSet, folder: Path) -> int:
    """Write a folder that ``datasets.load_dataset(FOLDER)`` reads, with the splits of the set."""
    (folder / "data").mkdir()
    rows, splits = 0, []
    for split in training_set.splits():
        written = [
            count for _, count in _shards(training_set.of_split(split).stream(), folder / "data", split)
        ]
        splits += [split] if written else []
        rows += sum(written)
    configs = "".join(f"  - {{split: {split}, path: data/{split}-*.parquet}}\n" for split in splits)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{configs}---\n\n"
        f"{training_set.manifest['dataset_version']}: {rows:,} features; "
        "_manifest.json names the tables that they come from.\n"
    )
    return rows


def _croissant(training_set: TrainingSet, folder: Path) -> int:
    """Write Parquet files, and ``croissant.json`` that describes them (MLCommons Croissant 1.0)."""
    shards = list(_shards(training_set.stream(), folder, "part"))
    schema = pq.read_schema(shards[0][0])
    (folder / "croissant.json").write_text(
        json.dumps(_croissant_metadata(training_set, schema, [path for path, _ in shards]), indent=1)
    )
    return sum(rows for _, rows in shards)


def _croissant_metadata(training_set: TrainingSet, schema: pa.Schema, files: list[Path]) -> dict[str, Any]:
    name = training_set.manifest["dataset_version"].replace("@", "-")
    objects = [
        {"@type": "cr:FileObject", "@id": path.name, "name": path.name, "contentUrl": path.name,
         "encodingFormat": "application/x-parquet", "sha256": file_hash(path)}
        for path in files
    ]  # fmt: skip
    parts = {
        "@type": "cr:FileSet",
        "@id": "parts",
        "name": "parts",
        "encodingFormat": "application/x-parquet",
        "includes": "*.parquet",
    }
    fields = [_croissant_field(item) for item in schema]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"Features of {training_set.manifest['dataset_version']}",
        "version": "1.0.0",
        "url": training_set.catalog.features.uri(training_set.manifest["tables"][0]["table"]),
        "datePublished": training_set.published_at[:10],
        "distribution": [*objects, parts],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "features", "name": "features", "field": fields}],
    }


def _croissant_field(item: pa.Field) -> dict[str, Any]:
    listed = pa.types.is_list(item.type) or pa.types.is_fixed_size_list(item.type)
    kind = item.type.value_type if listed else item.type
    described = {
        "@type": "cr:Field",
        "@id": f"features/{item.name}",
        "name": item.name,
        "dataType": next((name for is_type, name in _TYPES if is_type(kind)), "sc:Text"),
        "source": {"fileSet": {"@id": "parts"}, "extract": {"column": item.name}},
    }
    return {**described, "repeated": True} if listed else described


_TYPES = [
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_timestamp, "sc:DateTime"),
]
# The context that the specification prescribes.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FORMS = {"parquet": _parquet, "webdataset": _webdataset, "huggingface": _huggingface, "croissant": _croissant}
