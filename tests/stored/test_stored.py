"""A store that the code before the rooms wrote (`make.py`) answers as it did then, and nothing of it is computed again."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mm_assets.cli.main import app
from mm_embed_kernels.identity import library_versions
from tests.stored import make

HERE = Path(__file__).parent
ANSWERS: dict[str, Any] = json.loads((HERE / "answers.json").read_text("utf-8"))
# What gives other results on purpose since the store was written, and is computed again from its blobs: pictures and
# films as a viewer shows them, sound as a player plays it, encodings of short texts, agreement without content.
RAISED = {
    "embedders": {"aisfx", "conse", "conse_frames"},
    "modalities": {"audio", "image", "text", "video"},
    "rules": {
        "near_duplicate_audio",
        "near_duplicate_image",
        "near_duplicate_text",
        "near_duplicate_video",
        "unsupported_language",
    },
}
# Keys whose values every run makes anew.
NEW_IN_EACH_RUN = {"run_id", "seconds"}


def mm(*words: str) -> Any:
    """Run a command with ``--json`` in this process; its answer."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        app([*words, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    """The store at the place where its listings say that its sources lie."""
    with FileLock(f"{make.ROOT}.lock"), pytest.MonkeyPatch.context() as patched:
        for name, value in make.environment().items():
            patched.setenv(name, value)
        patched.setenv("MM_PROFILE", "bundled")
        shutil.rmtree(make.ROOT, ignore_errors=True)
        with tarfile.open(HERE / "store.tar.xz") as archive:
            archive.extractall(make.ROOT.parent, filter="data")
        yield
        shutil.rmtree(make.ROOT, ignore_errors=True)


def without(answer: Any, names: set[str]) -> Any:
    """The answer without some keys, at any depth."""
    if isinstance(answer, dict):
        return {name: without(value, names) for name, value in answer.items() if name not in names}
    return [without(value, names) for value in answer] if isinstance(answer, list) else answer


def about(answer: Any) -> Any:
    """The answer with tolerance for the last digits of its floats."""
    if isinstance(answer, dict):
        return {name: about(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [about(value) for value in answer]
    return pytest.approx(answer, abs=1e-5) if isinstance(answer, float) else answer


def same_libraries() -> bool:
    """Whether the models' libraries are those that the store was written with, which fingerprints name."""
    written = ANSWERS["fingerprints"]["libraries"]
    return library_versions(tuple(written)) == written


@pytest.mark.parametrize("name", sorted(make.COMMANDS))
def test_answers_are_the_same(name: str) -> None:
    checked = {"looked_at", "drift_summary"} if name.startswith("status") else set()
    assert without(mm(*make.COMMANDS[name]), checked) == about(without(ANSWERS[name], checked))


def test_the_chain_of_a_feature_is_the_same() -> None:
    feature = ANSWERS["search-text"][0]["feature_id"]
    assert mm("explain", feature) == about(ANSWERS["explain"])


def test_an_export_holds_the_same_rows(tmp_path: Path) -> None:
    mm("export", "small@v1", "--modality", "text", "--out", str(tmp_path / "exported"))
    assert json.loads((tmp_path / "exported" / "_manifest.json").read_text("utf-8")) == ANSWERS["export"]


@pytest.mark.skipif(
    not same_libraries(), reason="fingerprints name the libraries' versions, which have moved on"
)
@pytest.mark.parametrize("kind", ["embedders", "modalities", "rules"])
def test_fingerprints_are_the_same(kind: str) -> None:
    kept = {name: value for name, value in ANSWERS["fingerprints"][kind].items() if name not in RAISED[kind]}
    found = make.fingerprints()[kind]
    assert {name: found[name] for name in kept} == kept
    assert all(found[name] != ANSWERS["fingerprints"][kind][name] for name in RAISED[kind])


@pytest.mark.skipif(
    not same_libraries(), reason="models of other libraries compute their vectors anew, as they should"
)
def test_a_backfill_computes_what_was_raised_once() -> None:
    cells = mm("backfill", "small@v1")["cells"]
    assert {cell["status"] for cell in cells} <= {"unchanged", "published"}
    assert {cell["computed"]["fetch"] for cell in cells} == {0}
    again = mm("backfill", "small@v1")["cells"]
    assert without(again, NEW_IN_EACH_RUN) == without(ANSWERS["unchanged"]["cells"], NEW_IN_EACH_RUN)
    assert {cell["status"] for cell in again} == {"unchanged"}


@pytest.mark.skipif(
    not same_libraries(), reason="models of other libraries compute their vectors anew, as they should"
)
def test_a_later_version_is_compared_with_production_and_fetches_nothing() -> None:
    """The version before it was promoted after its backfill, so that its report is written once more."""
    cells = mm("backfill", "small@v2")["cells"]
    assert {cell["modality"] for cell in cells} == {"audio", "image", "text", "video"}
    assert {cell["computed"]["fetch"] for cell in cells} == {0}
    again = mm("backfill", "small@v2")["cells"]
    assert all(count == 0 for cell in again for count in cell["computed"].values())
