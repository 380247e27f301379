"""Parquet files described by MLCommons Croissant, with their provenance."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pyarrow as pa

from mm_embed_kernels.extras import explain_missing
from mm_resources.cell import Cell
from mm_resources.exports.base import Request, Shard
from mm_resources.exports.parquet import Parquet
from mm_resources.storage.store import Store

_VERSION = "http://mlcommons.org/croissant/1.1"
_PROV = "http://www.w3.org/ns/prov#"
_TYPES = [
    (pa.types.is_boolean, "BOOL"),
    (pa.types.is_integer, "INTEGER"),
    (pa.types.is_floating, "FLOAT"),
    (pa.types.is_timestamp, "DATETIME"),
]
_MEDIA = {"image": "IMAGE_OBJECT", "audio": "AUDIO_OBJECT", "video": "VIDEO_OBJECT"}


class Croissant(Parquet):
    """Parquet files and ``croissant.json`` (Croissant 1.1), written by ``mlcroissant``.

    Its PROV statements say from which pin, table and Lance version the rows are, by which embedder they were
    made, and by which run published.
    """

    name = "croissant"
    packages = ("mlcroissant",)

    def finish(self, request: Request, shards: list[Shard], folder: Store) -> None:
        with explain_missing("the export format croissant"):
            import mlcroissant as mlc

        manifest = request.training_set.manifest
        context = mlc.Context()
        context.conforms_to = context.conforms_to.from_jsonld(context, _VERSION)
        context.rdf.context = mlc.Rdf.from_json(context, {"@context": {}}).context or context.rdf.context
        context.rdf.context["prov"] = _PROV
        files = [
            mlc.FileObject(
                ctx=context, id=shard.name, name=shard.name, content_url=shard.name, sha256=shard.sha256,
                content_size=f"{shard.bytes} B", encoding_formats=["application/x-parquet"],
            )
            for shard in shards
        ]  # fmt: skip
        parts = mlc.FileSet(
            ctx=context,
            id="parts",
            name="parts",
            includes=["*-*.parquet"],
            encoding_formats=["application/x-parquet"],
        )
        fields = [_field(mlc, context, item, request) for item in self.schema(request)]
        described = mlc.Metadata(
            ctx=context,
            name=manifest["dataset_version"].replace("@", "-"),
            description=f"Features of {manifest['dataset_version']}",
            version="1.0.0",
            url=request.training_set.catalog.store.root,
            date_published=datetime.fromisoformat(request.training_set.published_at),
            distribution=[*files, parts],
            record_sets=[mlc.RecordSet(ctx=context, id="features", name="features", fields=fields)],
            extra_properties=_provenance(request),
        )
        text = json.dumps(described.to_json(), indent=1, default=str)
        folder.write("croissant.json", text.encode())


def _field(mlc: Any, context: Any, item: pa.Field, request: Request) -> Any:
    listed = pa.types.is_list(item.type) or pa.types.is_fixed_size_list(item.type)
    kind = item.type.value_type if listed else item.type
    extract, transforms, known = {"column": item.name}, [], mlc.DataType
    if item.name in request.media:
        types = [getattr(known, _MEDIA.get(request.kinds[item.name], "TEXT"))]
        transforms = [mlc.Transform(json_path="bytes")]
    else:
        types = [getattr(known, next((name for is_type, name in _TYPES if is_type(kind)), "TEXT"))]
    more = (
        {"is_array": True, "array_shape": str(item.type.list_size)}
        if pa.types.is_fixed_size_list(item.type)
        else {}
    )
    if listed and not more:
        more = {"is_array": True, "array_shape": "-1"}
    return mlc.Field(
        ctx=context, id=f"features/{item.name}", name=item.name, data_types=types,
        source=mlc.Source(
            ctx=context, file_set="parts", extract=mlc.Extract(**extract), transforms=transforms
        ),
        **more,
    )  # fmt: skip


def _provenance(request: Request) -> dict[str, Any]:
    """Return PROV statements from the pins behind the set."""
    derived, made = [], []
    for part in request.training_set.manifest.get("parts") or [request.training_set.manifest]:
        dataset, version = part["dataset_version"].split("@")
        for table in part["tables"]:
            pins = request.training_set.catalog.registry.pins
            pin = pins.get(Cell(dataset, version, table["modality"]), table["pin"])
            name = f"{part['dataset_version']}|{table['modality']}#{table['pin']}"
            derived.append({"@type": "prov:Entity", "@id": f"urn:mm:pin:{name}", "prov:label": name})
            if pin is None:
                continue
            pinned = next(each for each in pin.tables if each.table == table["table"])
            made.append(
                {
                    "@type": "prov:Activity",
                    "@id": f"urn:mm:run:{pin.run_id}",
                    "prov:label": f"published by run {pin.run_id}",
                    "prov:endedAtTime": pin.published_at,
                    "prov:used": f"{table['table']} at Lance version {table['lance_version']}",
                    "prov:wasAssociatedWith": {
                        "@type": "prov:SoftwareAgent",
                        "@id": f"urn:mm:embedder:{pinned.fingerprint}",
                        "prov:label": f"{pinned.embedder}, weights {pinned.weights_hash[:16]}",
                    },
                }
            )
    return {"prov:wasDerivedFrom": derived, "prov:wasGeneratedBy": made}
