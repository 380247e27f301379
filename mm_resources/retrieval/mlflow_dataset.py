"""A training set as MLflow's dataset. Imports MLflow; `RunInput.log_to_mlflow` imports this module."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

from mm_resources.retrieval.manifests import parts_of, tables_of

# Characters of a digest that MLflow stores.
_DIGEST_CHARS = 36


class MlflowSource(DatasetSource):  # type: ignore[misc]
    """The store of a training set, and its digest.

    The entry point ``mlflow.dataset_source`` of the package lets ``mlflow.data.get_source`` find it.

    Args:
        root: of the store, without secrets.
        digest: of the set, whole.
    """

    def __init__(self, root: str, digest: str) -> None:
        self.root, self.digest = root, digest

    @staticmethod
    def _get_source_type() -> str:
        return "mm_training_set"

    def load(self) -> Any:
        """Return the `TrainingSet`, where its manifest was recorded in the store."""
        # By its public name: MLflow makes the source from JSON, below all that opens a store.
        features = import_module("mm_resources").FeatureStore.open(self.root)
        return features.training_set(manifest=self.digest)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:  # noqa: ARG004 - of a signature of MLflow's
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> MlflowSource:
        raise NotImplementedError(f"{raw_source!r}: a training set logs itself, TrainingSet.log_to_mlflow")

    def to_dict(self) -> dict[str, Any]:
        return {"root": self.root, "digest": self.digest}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> MlflowSource:
        return cls(source_dict["root"], source_dict["digest"])


class MlflowDataset(Dataset):  # type: ignore[misc]
    """A training set as an input of a run: its pins as profile, the digest of its rows as digest."""

    def __init__(self, source: MlflowSource, manifest: dict[str, Any]) -> None:
        self._manifest = manifest
        super().__init__(source, manifest["dataset_version"], manifest["digest"][:_DIGEST_CHARS])

    def _compute_digest(self) -> str:
        return str(self._manifest["digest"])[:_DIGEST_CHARS]

    @property
    def schema(self) -> dict[str, Any]:
        """Columns beside ids and vectors, and classes by number."""
        return {"columns": self._manifest["columns"], "classes": self._manifest.get("classes", [])}

    @property
    def profile(self) -> dict[str, Any]:
        """Number of rows, and the tables with their pins."""
        return {
            "rows": self._manifest["rows"],
            "versions": [part["dataset_version"] for part in parts_of(self._manifest)],
            "tables": tables_of(self._manifest),
        }

    def to_dict(self) -> dict[str, str]:
        described = {"schema": json.dumps(self.schema), "profile": json.dumps(self.profile)}
        return {**super().to_dict(), **described}
