"""Specs, registries and their listings for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import Store


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Store(str(tmp_path / "store")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"text {name}")
    return folder


def spec_of(*sources: dict[str, Any], **top: Any) -> DatasetSpec:
    named = [{"name": f"s{i}", "modality": "text", **source} for i, source in enumerate(sources)]
    return DatasetSpec.model_validate({"name": "birds", "version": "v1", "sources": named, **top})


def freeze(registry: Registry, spec: DatasetSpec) -> list[str]:
    registry.register(spec)
    return [registry.listings.freeze(spec, source) for source in spec.sources]


def list_samples(registry: Registry, spec: DatasetSpec, modality: str = "text") -> list[dict[str, Any]]:
    table = registry.listings.listing(spec, modality).read_all()
    contract = registry.listings.contract(spec)
    assert table.schema.equals(contract.bare)
    assert contract.violations(table) == {}
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def write(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)
