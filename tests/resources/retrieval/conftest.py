"""Fixtures of retrieval."""

from __future__ import annotations

import pytest

from mm_resources.retrieval.feature_store import FeatureStore
from tests.resources.media_sets import media_store


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Pictures and sounds of ``things@v1``, which are read only."""
    return media_store(tmp_path_factory.mktemp("things"))
