"""Training sets in MLflow and Weights & Biases, and the way from a digest back to a picture."""

from __future__ import annotations

import json
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import content_hash
from mm_resources.retrieval.feature_store import FeatureStore
from tests.processes import ROOT
from tests.resources.media_sets import media_store, picture


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return media_store(tmp_path_factory.mktemp("tracked"), 8)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow with a store of its own."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    mlflow.create_experiment("here", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("here")
    yield mlflow
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


def test_a_picture_is_found_again_from_the_digest_of_a_trained_model(
    features: FeatureStore, runs: Any, tmp_path: Path
) -> None:
    chosen = features.training_set("things@v1", modality="image", where="label = 'red'")
    with runs.start_run() as run:
        dataset = chosen.log_to_mlflow()
        runs.log_dict({"weights": [1, 2]}, "model/weights.json")
    found = runs.get_run(run.info.run_id)
    (logged,) = found.inputs.dataset_inputs
    assert logged.dataset.name == "things@v1"
    assert logged.dataset.digest == chosen.digest[:36] == dataset.digest
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]
    assert found.data.tags["training_set.training"] == chosen.digest
    file = runs.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="training_set.json")
    assert json.loads(Path(file).read_text()) == chosen.manifest

    traced = features.trace(logged.dataset.digest)
    assert traced["digest"] == chosen.digest
    (made,) = traced["sets"]
    (table,) = made["tables"]
    pin = features.published("things@v1", "image")
    assert (table["pin"], table["run_id"], table["table"]) == (1, pin.run_id, pin.primary.table)
    assert made["where"] == ["(label = 'red')"]
    assert {row["label"] for row in traced["samples"]} == {"red"}
    first = traced["samples"][0]
    number = int(first["key"].removeprefix("image-"))
    assert first["content_hash"] == content_hash(picture("red", number))
    again = features.training_set(manifest=logged.dataset.digest)
    assert again.manifest == chosen.manifest
    media = {
        key: data
        for batch in again.to_torch(media=True)
        for key, data in zip(batch["feature_id"], batch["media"], strict=True)
    }
    assert media[first["feature_id"]] == picture("red", number)


def test_mlflow_finds_the_source_by_the_entry_point(features: FeatureStore, runs: Any) -> None:
    from mlflow.data.dataset_source_registry import DatasetSourceRegistry

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["mlflow.dataset_source"]["mm_training_set"].partition(":")
    registry = DatasetSourceRegistry()
    registry.register(getattr(import_module(module), name))
    chosen = features.training_set("things@v1", modality="audio")
    with runs.start_run() as run:
        chosen.log_to_mlflow(context="validation")
    (logged,) = runs.get_run(run.info.run_id).inputs.dataset_inputs
    source = registry.get_source_from_json(logged.dataset.source, logged.dataset.source_type)
    assert source.load().to_arrow().equals(chosen.to_arrow())


def test_weights_and_biases_keeps_the_manifest(
    features: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    mixed = features.training_set({"things@v1": 1}, modality="image", balance="label", epoch_rows=6)
    with pytest.raises(UserError, match=r"call wandb\.init\(\) first"):
        mixed.log_to_wandb()
    with wandb.init(project="things", dir=str(tmp_path), mode="offline") as run:
        artifact = mixed.log_to_wandb(run)
        assert run.config["training_set.training"] == mixed.digest
    wandb.teardown()  # its service writes the file to its end
    assert artifact.type == "dataset"
    assert artifact.metadata["digest"] == mixed.digest
    (entry,) = artifact.manifest.entries.values()
    assert json.loads(Path(entry.local_path).read_text()) == mixed.manifest
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
    assert mixed.digest.encode() in stored, "in the file that is synchronised later"
    assert features.training_set(manifest=mixed.digest).to_arrow().equals(mixed.to_arrow())


def test_what_is_not_recorded_is_named(features: FeatureStore) -> None:
    chosen = features.training_set("things@v1", modality="image", columns=["key"])
    with pytest.raises(UserError, match=r"no training set with the digest 8-[0-9a-f]+ is recorded"):
        features.trace(chosen.digest)
    assert features.trace(chosen.manifest)["sets"][0]["recorded_at"] is None
    with pytest.raises(UserError, match="'8-12' is no digest"):
        features.training_set(manifest="8-12")
    with pytest.raises(UserError, match="this is no manifest of a training set"):
        features.trace({"digest": "8-12"})
    assert chosen.record() == chosen.digest == chosen.record()
    assert len(features.trace(chosen.digest, samples=3)["samples"]) == 3


def test_two_sets_with_one_beginning_are_not_mistaken_for_each_other(features: FeatureStore) -> None:
    records, manifest = (
        features.catalog.training_sets,
        features.training_set("things@v1", modality="image").manifest,
    )
    for end in "ab":
        records.record({**manifest, "digest": f"8-00000000{end}"})
    with pytest.raises(UserError, match="beginning of several digests: 8-00000000a, 8-00000000b"):
        records.find("8-000000")
    assert records.find("8-00000000b")[0]["manifest"]["digest"] == "8-00000000b"


def test_forgetting_removes_what_people_wrote(features: FeatureStore) -> None:
    chosen = features.training_set("things@v1", modality="audio", where="label = 'low'")
    chosen.record()
    (table,) = chosen.manifest["tables"]
    records = features.catalog.training_sets
    records.forget([f"{table['table']}@{table['lance_version'] + 1}"])
    assert records.find(chosen.digest)[0]["manifest"] == chosen.manifest
    records.forget([f"{table['table']}@{table['lance_version']}"])
    raw = b"".join(
        features.catalog.store.read(f"registry/training_sets/{name}")
        for name in features.catalog.store.names("registry/training_sets")
        if name.startswith(chosen.digest)
    )
    assert b"low" not in raw
    traced = features.trace(chosen.digest)
    assert traced["samples"] == []
    assert traced["sets"][0]["tables"][0]["pin"] == 1
    with pytest.raises(UserError, match="were forgotten, and its filter with them"):
        features.training_set(manifest=chosen.digest)
