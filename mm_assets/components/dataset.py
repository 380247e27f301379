"""The component whose attributes are the spec of a dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster.components import Scaffolder, ScaffoldRequest, scaffold_component
from pydantic import BaseModel

from mm_assets.automation.spec_sensor import spec_sensor
from mm_assets.cells.dataset_assets import dataset_definitions
from mm_embed_kernels.spec.dataset_spec import DatasetSpec


class DatasetScaffolder(Scaffolder[Any]):
    """Writes a component with the fields that a spec must have."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        """Write ``defs.yaml`` for a folder of files beside it."""
        name = request.target_path.stem
        source = {"name": "files", "modality": "auto", "uri": "data/**/*"}
        scaffold_component(request, {"name": name, "version": "v1", "sources": [source]})


@dg.scaffold_with(DatasetScaffolder)
class Dataset(dg.Component):
    """A dataset: its attributes are its spec; relative URIs begin at the folder of ``defs.yaml``.

    A sensor registers the version when the file has changed, and requests its cells from the job of
    `FeaturePlatform`. The published features are assets on which others depend by their keys,
    ``features/NAME/MODALITY`` and ``features/NAME/ALIAS``, with the owners, tags and freshness
    of its `card`. One component stands for a dataset: a new version is an edit of it.
    """

    def __init__(self, spec: DatasetSpec, path: Path) -> None:
        self.spec, self.path = spec, path

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The model of a spec, by which Dagster checks the YAML and writes its JSON Schema."""
        return DatasetSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Return the component of a valid spec."""
        assert isinstance(attributes, DatasetSpec)
        return cls(attributes, context.path / "defs.yaml")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - its interface
        """Return the dataset's assets and the sensor that registers its spec."""
        name = re.sub(r"\W", "_", f"dataset_{self.spec.name}")
        sensor = spec_sensor(name, f"the dataset {self.spec.name}", lambda: self.path)
        return dg.Definitions.merge(dataset_definitions(self.spec), dg.Definitions(sensors=[sensor]))
