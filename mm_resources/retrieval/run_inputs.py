"""Records of training sets with what is trained on them: in the store, in MLflow, in Weights & Biases."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_embed_kernels.urls import redact_url
from mm_resources.catalog import Catalog
from mm_resources.retrieval.manifests import parts_of

if TYPE_CHECKING:
    from mm_resources.retrieval.mlflow_dataset import MlflowDataset

MANIFEST_FILE = "training_set.json"


class RunInput(ABC):
    """The records of a training set that lead from a trained model back to its rows."""

    catalog: Catalog

    @property
    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """JSON that names the rows."""

    @property
    def digest(self) -> str:
        """Digest of the rows, by which the set is traced back: store it with what is trained on them."""
        return str(self.manifest["digest"])

    def record(self) -> str:
        """Record the manifest in the store, and return its digest.

        ``mm trace DIGEST`` and ``FeatureStore.training_set(manifest=DIGEST)`` find it by the digest, or by
        its beginning.

        Raises:
            OSError: for a store that this process may only read; keep the manifest itself then.
        """
        self.catalog.training_sets.record(self.manifest)
        return self.digest

    def log_to_mlflow(self, context: str = "training", record: bool = True) -> MlflowDataset:
        """Log the set as an input of the active run of MLflow, which is started where there is none.

        The run has the dataset with its digest (of which MLflow keeps 36 characters) and its source, the
        manifest as the artifact ``training_set.json``, and the whole digest as the tag
        ``training_set.CONTEXT``.

        Args:
            context: what the run uses the rows for, such as ``training`` or ``validation``.
            record: whether to record the manifest in the store, too; not where it may only be read.

        Returns:
            The `mlflow.data.dataset.Dataset`, for ``mlflow.log_input`` elsewhere.

        Raises:
            UserError: where MLflow is not installed.
        """
        with explain_missing("TrainingSet.log_to_mlflow"):
            import mlflow

            # imports MLflow
            from mm_resources.retrieval.mlflow_dataset import MlflowDataset, MlflowSource

        if record:
            self.record()
        source = MlflowSource(redact_url(self.catalog.store.root), self.digest)
        dataset = MlflowDataset(source, self.manifest)
        mlflow.log_input(dataset, context=context)
        name = MANIFEST_FILE if context == "training" else f"{context}/{MANIFEST_FILE}"
        mlflow.log_dict(self.manifest, name)
        mlflow.set_tag(f"training_set.{context}", self.digest)
        return dataset

    def log_to_wandb(self, run: Any = None, context: str = "training", record: bool = True) -> Any:
        """Log the set as an artifact that a run of Weights & Biases uses.

        The run's configuration has the digest as ``training_set.CONTEXT``; the artifact, of the type
        ``dataset``, has the manifest. Offline, W&B can only log the artifact instead of using it.

        Args:
            run: of ``wandb.init``; by default the active one.
            context, record: as of `log_to_mlflow`.

        Returns:
            The `wandb.Artifact`.

        Raises:
            UserError: where W&B is not installed, or no run is active.
        """
        with explain_missing("TrainingSet.log_to_wandb"):
            import wandb

        run = run if run is not None else wandb.run
        if run is None:
            raise UserError("no run of Weights & Biases is active; call wandb.init() first, or give run=")
        if record:
            self.record()
        # Names of artifacts have letters, digits, dots, hyphens and underscores.
        name = "-".join(part["dataset_version"].replace("@", "-") for part in parts_of(self.manifest))
        described = {name: self.manifest[name] for name in ("dataset_version", "rows", "digest")}
        artifact = wandb.Artifact(f"{name[:100]}-{self.digest[-12:]}", type="dataset", metadata=described)
        with artifact.new_file(MANIFEST_FILE) as file:
            json.dump(self.manifest, file, indent=1)
        log = run.log_artifact if run.offline else run.use_artifact
        log(artifact)
        run.config.update({f"training_set.{context}": self.digest}, allow_val_change=True)
        return artifact
