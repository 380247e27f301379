"""Folders of Hugging Face's `datasets`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mm_embed_kernels.extras import explain_missing
from mm_resources.exports.base import Request, Rows, Shard, class_numbers, label_columns
from mm_resources.exports.parquet import Parquet
from mm_resources.storage.store import Store

_FEATURES = {"image": "Image", "audio": "Audio", "video": "Video"}


class HuggingFace(Parquet):
    """A folder that ``datasets.load_dataset(FOLDER)`` reads, with media and classes as such.

    The features are those of the library, which states them in each file; the card names the splits.
    ``load_dataset(FOLDER).push_to_hub(NAME)`` uploads it by the login of the library.
    """

    name = "huggingface"
    packages = ("datasets",)
    by_split = True

    def schema(self, request: Request) -> pa.Schema:
        return self.features(request).arrow_schema

    def features(self, request: Request) -> Any:
        """Return the `datasets.Features` of the files."""
        with explain_missing("the export format huggingface"):
            import datasets

        found = datasets.Features.from_arrow_schema(super().schema(request))
        if request.classes:
            for name in label_columns(request.schema.names):
                found[name] = datasets.ClassLabel(names=request.classes)
        for name, kind in request.kinds.items():
            if kind in _FEATURES:
                found[name] = getattr(datasets, _FEATURES[kind])()
        return found

    def table(self, rows: Rows, request: Request, schema: pa.Schema) -> pa.Table:
        plain = super().table(rows, request, super().schema(request))
        if request.classes:
            for name in label_columns(request.schema.names):
                numbers = pa.array(class_numbers(request, plain[name].to_pylist()), pa.int64())
                plain = plain.set_column(plain.column_names.index(name), name, numbers)
        return plain.cast(schema)

    def finish(self, request: Request, shards: list[Shard], folder: Store) -> None:
        from huggingface_hub import DatasetCard, DatasetCardData

        splits = list(dict.fromkeys(shard.split for shard in shards))
        files = [{"split": split, "path": [f"{split}-*.parquet"]} for split in splits]
        card = DatasetCardData(configs=[{"config_name": "default", "data_files": files}])
        manifest = request.training_set.manifest
        text = (
            f"---\n{card.to_yaml()}\n---\n\n# {manifest['dataset_version']}\n\n"
            f"{manifest['rows']:,} features; "
            "`_manifest.json` names the tables that they come from.\n"
        )
        folder.write("README.md", str(DatasetCard(text)).encode())
