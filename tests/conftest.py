"""Fixtures of all tests, and the profiles of hypothesis."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from mm_resources.compute.ray_session import RaySession
from mm_resources.storage.process import configure_process
from tests.gcs import gcs, gcs_server
from tests.s3 import s3, s3_server

__all__ = ["gcs", "gcs_server", "s3", "s3_server"]

pytest_plugins = ["tests.budgets", "tests.schedule"]

# The same examples in every run, no database of them; `make test-all` tries as many as hypothesis does by default.
_PROFILE = {
    "database": None,
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("fast", max_examples=25, **_PROFILE)
settings.register_profile("thorough", max_examples=100, **_PROFILE)
settings.load_profile("fast")

# As the platform's own processes are: tests run cells in this one.
configure_process()


def pytest_collection_finish() -> None:
    """Exempt what three thousand collected tests and their modules hold from each later garbage collection."""
    gc.collect()
    gc.freeze()


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a folder by its name, filled once in a run of the tests, whatever workers it has; it is to be read only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        root = shared / name
        with FileLock(f"{root}.lock"):
            if not (shared / f"{name}.done").exists():
                shutil.rmtree(root, ignore_errors=True)  # what a worker that failed has left
                root.mkdir()
                fill(root)
                (shared / f"{name}.done").touch()
        return root

    return folder


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """Two photographs of scikit-learn's: a flower and a Chinese temple."""
    import sklearn

    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    return {"flower": folder / "flower.jpg", "temple": folder / "china.jpg"}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RaySession]:
    """Ray on this machine, started once, by the worker that takes the tests on Ray."""
    session = RaySession(num_cpus=2, object_store_bytes=200 << 20)
    session.start()
    yield session
    session.close()


SENTENCES = [
    ("s1", "The cat sleeps on the warm sofa all day long.", "pets"),
    ("s2", "Espresso is made by forcing hot water through ground coffee.", "food"),
]


@pytest.fixture
def dataset(tmp_path: Path, photos: dict[str, Path]) -> Path:
    return write_dataset(tmp_path / "data", photos)


def write_dataset(folder: Path, photos: dict[str, Path]) -> Path:
    """Write a folder with two samples and a broken one for images and for text, and a spec; return the spec's path."""
    for label, photo in photos.items():
        (folder / "photos" / label).mkdir(parents=True)
        shutil.copy(photo, folder / "photos" / label / "1.jpg")
    (folder / "photos" / "flower" / "broken.jpg").write_bytes(photos["flower"].read_bytes()[:9_000])
    lines = [json.dumps({"id": i, "text": text, "topic": topic, "stars": 5}) for i, text, topic in SENTENCES]
    (folder / "sentences.jsonl").write_text("\n".join([*lines, "{not json"]) + "\n", "utf-8")
    spec = folder / "dataset.yaml"
    spec.write_text(
        """
name: tiny
version: v1
schema: {stars: int}
gates: {max_failed_share: 0.5}
sources:
  - {name: photos, modality: image, uri: "photos/**/*.jpg", label: {from: parent_dir}}
  - {name: sentences, modality: text, uri: sentences.jsonl, record: {id: id, text: text, label: topic}}
""",
        "utf-8",
    )
    return spec
