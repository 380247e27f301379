"""A store that the code before the rooms wrote (`make.py`) answers as it did then, and nothing of it is computed again."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mm_embed_kernels.identity import library_versions
from tests.stored import make

HERE = Path(__file__).parent
ANSWERS: dict[str, Any] = json.loads((HERE / "answers.json").read_text("utf-8"))
# What every run names anew.
VOLATILE = {"run_id", "seconds", "drift", "drift_summary", "at"}


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    """The store at the place where its listings say that its sources lie."""
    with FileLock(f"{make.ROOT}.lock"):
        shutil.rmtree(make.ROOT, ignore_errors=True)
        with tarfile.open(HERE / "store.tar.xz") as archive:
            archive.extractall(make.ROOT.parent, filter="data")
        yield
        shutil.rmtree(make.ROOT, ignore_errors=True)


def stable(answer: Any) -> Any:
    """The answer without what is new in every run; figures up to the last digits of a float."""
    if isinstance(answer, dict):
        return {name: stable(value) for name, value in answer.items() if name not in VOLATILE}
    if isinstance(answer, list):
        return [stable(value) for value in answer]
    return pytest.approx(answer, abs=1e-5) if isinstance(answer, float) else answer


def same_libraries() -> bool:
    """Whether the models' libraries are those that the store was written with, which fingerprints name."""
    written = ANSWERS["fingerprints"]["libraries"]
    return library_versions(tuple(written)) == written


@pytest.mark.parametrize("name", sorted(make.COMMANDS))
def test_answers_are_the_same(name: str) -> None:
    assert make.mm(*make.COMMANDS[name]) == stable(ANSWERS[name])


def test_the_chain_of_a_feature_is_the_same() -> None:
    feature = ANSWERS["search-text"][0]["feature_id"]
    assert make.mm("explain", feature) == stable(ANSWERS["explain"])


def test_an_export_holds_the_same_rows(tmp_path: Path) -> None:
    assert make.export(tmp_path / "exported") == ANSWERS["export"]


@pytest.mark.skipif(
    not same_libraries(), reason="fingerprints name the libraries' versions, which have moved on"
)
@pytest.mark.parametrize("kind", ["embedders", "modalities", "rules"])
def test_fingerprints_are_the_same(kind: str) -> None:
    assert make.fingerprints()[kind] == ANSWERS["fingerprints"][kind]


@pytest.mark.skipif(
    not same_libraries(), reason="models of other libraries compute their vectors anew, as they should"
)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_backfill_finds_nothing_to_compute(version: str) -> None:
    cells = make.mm("backfill", f"small@{version}")["cells"]
    assert {cell["modality"]: cell["status"] for cell in cells} == dict.fromkeys(
        ("audio", "image", "text", "video"), "unchanged"
    )
    assert all(count == 0 for cell in cells for count in cell["computed"].values())
    if version == "v1":
        assert cells == stable(ANSWERS["unchanged"]["cells"])
