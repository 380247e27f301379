"""Parts of an empty store for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_resources.blobs.blob_store import BlobStore
from mm_resources.catalog import Catalog
from mm_resources.objects import http_client
from mm_resources.storage.store import Store


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(Store(str(tmp_path)))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "store")


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated without a pause to speak of."""
    monkeypatch.setattr(http_client, "_PAUSE", 0.001)
