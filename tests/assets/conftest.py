from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.definitions import build
from mm_assets.operations.backfill import CellResult, backfill_cell
from mm_assets.operations.dagster_home import open_instance
from mm_embed_kernels.spec.dataset_spec import load_spec, parse_spec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.registry import Registry
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.settings import Settings
from mm_resources.storage.store import Store
from mm_resources.tables.failure_events import FailureFilter
from tests.conftest import write_dataset


@dataclass
class Platform:
    """A catalog and a Dagster instance of its own."""

    settings: Settings
    instance: dg.DagsterInstance
    catalog: Catalog = field(init=False)

    def __post_init__(self) -> None:
        self.catalog = Catalog.open(self.settings.store)

    @property
    def store(self) -> Store:
        return self.catalog.store

    @property
    def registry(self) -> Registry:
        return self.catalog.registry

    @property
    def features(self) -> FeatureStore:
        return FeatureStore(self.catalog)

    def register(self, spec: Path) -> str:
        loaded = load_spec(spec)
        self.registry.register(loaded)
        return loaded.dataset_version

    def backfill(
        self,
        dataset_version: str,
        modality: str | None = None,
        mode: str = "inline",
        override: str = "",
        redrive: FailureFilter | None = None,
    ) -> dict[str, CellResult]:
        definitions = build(store=self.settings.store, mode=mode)
        cells = self.registry.cells(dataset_version, modality)
        return {
            cell.modality: backfill_cell(
                self.instance, definitions, cell, self.catalog, override, redrive=redrive
            )
            for cell in cells
        }

    def cell(self, dataset_version: str, modality: str) -> Cell:
        return self.registry.cells(dataset_version, modality)[0]


Run = Callable[..., subprocess.CompletedProcess[str]]
Maker = Callable[..., Platform]


@contextmanager
def platforms() -> Iterator[Maker]:
    """Yield a maker of platforms, each in its own folder; restore the environment at the end."""
    opened: list[Platform] = []
    before = dict(os.environ)

    def make(root: Path, store: str = "") -> Platform:
        settings = Settings(store or str(root / "store"), root / "home", root / "datasets", "bundled")
        opened.append(Platform(settings, open_instance(settings)))
        return opened[-1]

    yield make
    for platform in opened:
        platform.instance.dispose()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def new_platform() -> Iterator[Maker]:
    with platforms() as make:
        yield make


@pytest.fixture
def platform(new_platform: Maker, tmp_path: Path) -> Platform:
    return new_platform(tmp_path / "platform")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Iterator[Platform]:
    """A platform with ``tiny@v1``, published once; for tests that only read it."""
    root = tmp_path_factory.mktemp("published")
    with platforms() as make:
        platform = make(root)
        platform.register(write_dataset(root / "data", photos))
        results = platform.backfill("tiny@v1")
        assert {name: result.status for name, result in results.items()} == {
            "image": "published",
            "text": "published",
        }, results
        yield platform


@pytest.fixture
def mm(tmp_path: Path) -> Run:
    """Run `mm` in an empty folder with a store and a Dagster home of its own."""
    work = tmp_path / "work"
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MM_", "DAGSTER_"))}

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mm_assets.cli.main", *map(str, words)]
        return subprocess.run(
            command, cwd=work, env={**kept, **more}, capture_output=True, text=True, timeout=300
        )

    return run


_BIRDS = "{name: birds, version: v1, sources: [{name: notes, modality: text, uri: /nowhere/*.txt, allow_empty: true}]}"


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog in which a version without samples is registered, for tests that write the tables themselves."""
    monkeypatch.setenv("MM_STORE", str(tmp_path / "store"))
    catalog = Catalog.open(tmp_path / "store")
    catalog.registry.register(parse_spec(_BIRDS, "birds.yaml"))
    return catalog
