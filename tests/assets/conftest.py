"""Fixtures of the assets: platforms, what they publish, and the command line."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.cells import publication
from mm_assets.cli.main import main
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
from tests.assets.cell_stages import backfill_stages
from tests.conftest import Once, write_dataset

_DRAWN_SAMPLES = publication.DRAWN_SAMPLES


@pytest.fixture(autouse=True, scope="module")
def undrawn() -> Iterator[None]:
    """Cells of this process draw no plots, which take half of the time of a small one; see `drawn`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publication, "DRAWN_SAMPLES", sys.maxsize)
        yield


@contextmanager
def drawn() -> Iterator[None]:
    """Draw the plots of the cells that run in this block, as the product does."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publication, "DRAWN_SAMPLES", _DRAWN_SAMPLES)
        yield


@dataclass
class Platform:
    """A catalog and a Dagster instance of its own."""

    settings: Settings
    instance: dg.DagsterInstance
    durable: bool = False
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
        dagster: bool = False,
    ) -> dict[str, CellResult]:
        """Backfill the cells of a version.

        Args:
            dagster: run Dagster's job, whose events stand in `instance`, as a `durable` platform and Ray always
                do; by default the stages themselves.
        """
        if not (dagster or self.durable or mode != "inline"):
            return {
                cell.modality: backfill_stages(self.catalog, cell, override, redrive)
                for cell in self.registry.cells(dataset_version, modality)
            }
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
def environment() -> Iterator[None]:
    """Restore the environment at the end."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def platforms() -> Iterator[Maker]:
    """Yield a maker of platforms, each in its own folder; restore the environment at the end.

    A platform's Dagster instance lives in memory, at half of the time of one in a home, unless it is
    `durable`: for tests whose other processes, or the bytes of the home itself, are looked at.
    """
    opened: list[Platform] = []

    def make(root: Path, store: str = "", durable: bool = False) -> Platform:
        settings = Settings(store or str(root / "store"), root / "home", root / "datasets", "bundled")
        if durable:
            instance = open_instance(settings)
        else:
            os.environ.update(settings.exports())
            instance = dg.DagsterInstance.ephemeral()
        opened.append(Platform(settings, instance, durable))
        return opened[-1]

    with environment():
        yield make
        for platform in opened:
            platform.instance.dispose()


@pytest.fixture
def new_platform() -> Iterator[Maker]:
    with platforms() as make:
        yield make


@pytest.fixture
def platform(new_platform: Maker, tmp_path: Path) -> Platform:
    return new_platform(tmp_path / "platform")


@pytest.fixture
def lenient(platform: Platform, dataset: Path) -> Platform:
    """A platform with ``tiny@v1`` whose gate lets all failures pass."""
    dataset.write_text(dataset.read_text().replace("max_failed_share: 0.5", "max_failed_share: 1"))
    platform.register(dataset)
    return platform


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.slow)])
def mode(request: pytest.FixtureRequest) -> str:
    """Where kernels run: in this process, and on the Ray of this worker.

    On Ray it takes minutes: an actor for each stage and embedder loads its libraries anew. `make test` compares
    Ray with this process on pictures and texts (`test_ray_and_inline_agree`).
    """
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return str(request.param)


@pytest.fixture(scope="session")
def published_root(once: Once, photos: dict[str, Path]) -> Path:
    """The folder of a platform with ``tiny@v1``, published once in a run of the tests."""

    def publish(root: Path) -> None:
        with platforms() as make:
            platform = make(root, durable=True)
            platform.register(write_dataset(root / "data", photos))
            results = platform.backfill("tiny@v1")
            assert {name: result.status for name, result in results.items()} == {
                "image": "published",
                "text": "published",
            }, results

    return once("published", publish)


@pytest.fixture(scope="session")
def published(published_root: Path) -> Iterator[Platform]:
    """The published platform itself, for tests that only read it."""
    with platforms() as make:
        yield make(published_root, durable=True)


@pytest.fixture
def published_copy(published_root: Path, new_platform: Maker, tmp_path: Path) -> Platform:
    """A store of its own with ``tiny@v1`` published; its sources are everybody's, and stay as they are."""
    root = tmp_path / "copy"
    shutil.copytree(published_root / "store", root / "store")
    return new_platform(root)


class Templates:
    """Folders that are filled once by each worker, and handed out again as they were filled.

    A template has one path, since a listing names its sources by their paths: a test may change them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def restore(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Return the folder of that name, as `fill` filled it."""
        folder, kept = self.root / name, self.root / f"{name}.kept"
        shutil.rmtree(folder, ignore_errors=True)  # also what a `fill` that failed has left
        if kept.exists():
            shutil.copytree(kept, folder, symlinks=True)
        else:
            folder.mkdir()
            fill(folder)
            shutil.copytree(folder, kept, symlinks=True)
        return folder


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


def _clean_environment(more: dict[str, str]) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("MM_", "DAGSTER_"))}, **more}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder, which gets a store and a Dagster home of its own by the first command."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run_in(folder: Path) -> Run:
    """Return a function that runs `mm` in a folder, in this process: what it prints, and its exit code."""

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = ["mm", *map(str, words)]
        out, err, code = io.StringIO(), io.StringIO(), 0
        if absl := sys.modules.get("absl.logging"):
            # Its handler, which a reader of exports brings, closes any stream but the present and the first
            # stderr when Dagster configures logging: pytest's, while it is redirected.
            absl.get_absl_handler().python_handler.stream = sys.__stderr__
        with (
            environment(),
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patched,
        ):
            wanted = _clean_environment(more)
            os.environ.clear()
            os.environ.update(wanted)
            patched.setattr(sys, "argv", command)
            try:
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def mm(work: Path) -> Run:
    """Run `mm` in the folder `work`, in this process."""
    return run_in(work)


@pytest.fixture
def mm_process(work: Path) -> Run:
    """Run `mm` in the folder `work` as a user does, in a process of its own."""

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mm_assets.cli.main", *map(str, words)]
        return subprocess.run(
            command, cwd=work, env=_clean_environment(more), capture_output=True, text=True, timeout=300
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
