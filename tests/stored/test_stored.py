"""A store that the code before the rooms wrote (`make.py`) answers as it did then, and nothing of it is computed again."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from filelock import FileLock

from mm_assets.cli.main import app
from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.errors import without_classes
from mm_embed_kernels.identity import library_versions
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.versions import VersionWriter
from mm_resources.lineages.bounds import Bounds
from mm_resources.lineages.differences import COMPUTED_AT
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


def hexadecimal(answer: Any) -> Any:
    """The answer with bytes in hexadecimal, where earlier versions printed the literal of Python."""
    if isinstance(answer, dict):
        return {name: hexadecimal(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [hexadecimal(value) for value in answer]
    is_literal = isinstance(answer, str) and answer[:2] in ("b'", 'b"')
    return ast.literal_eval(answer).hex() if is_literal else answer


def same_libraries() -> bool:
    """Whether the models' libraries are those that the store was written with, which fingerprints name."""
    written = ANSWERS["fingerprints"]["libraries"]
    return library_versions(tuple(written)) == written


@pytest.mark.parametrize("name", sorted(make.COMMANDS))
def test_answers_are_the_same(name: str) -> None:
    checked = {"looked_at", "drift_summary", "overrides"} if name.startswith("status") else set()
    expected = without(ANSWERS[name], checked)
    if name.startswith("failures"):
        # Earlier versions printed names of classes in front of causes.
        expected = [{**event, "message": without_classes(event["message"])} for event in expected]
    assert without(mm(*make.COMMANDS[name]), checked) == about(expected)


def test_the_chain_of_a_feature_is_the_same() -> None:
    feature = ANSWERS["search-text"][0]["feature_id"]
    assert mm("explain", feature) == about(hexadecimal(ANSWERS["explain"]))


def test_an_export_holds_the_same_rows(tmp_path: Path) -> None:
    columns = ("--column", "label", "--column", "split")
    mm("export", "small@v1", "--modality", "text", *columns, "--out", str(tmp_path / "exported"))
    manifest = json.loads((tmp_path / "exported" / "_manifest.json").read_text("utf-8"))
    # Classes are named since exports have them.
    assert manifest.pop("classes") == ["food", "pets"]
    assert manifest == ANSWERS["export"]


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


def test_a_table_of_before_becomes_the_base_without_a_rewrite() -> None:
    """A version is written on top of it: its own files stay as they are, and its pins read what they read."""
    catalog = Catalog.open(make.environment()["MM_STORE"])
    features, cell = catalog.features, Cell("small", "v2", "text")
    pin = catalog.registry.pins.get(cell, 1)
    assert pin is not None
    table = pin.table("wordllama")
    before = features.dataset(table.table, table.lance_version).to_table()
    folder = Path(features.uri(table.table))
    # Data, indexes and manifests; Lance keeps a hint at the latest version beside them.
    files = {path: path.read_bytes() for kind in ("lance", "manifest") for path in folder.rglob(f"*.{kind}")}

    class Rows:
        """The stored rows, the first one with another label."""

        def bare_rows(self) -> Iterator[pa.Table]:
            at = pa.nulls(before.num_rows, pa.timestamp("us", tz="UTC"))
            yield next(self.rows()).drop(["vector"]).append_column(COMPUTED_AT, at)

        def rows(self, numbers: Any = None) -> Iterator[pa.Table]:
            labels = ["other", *before["label"].to_pylist()[1:]]
            place = before.column_names.index("label")
            changed = before.set_column(place, "label", pa.array(labels, pa.string()))
            yield changed if numbers is None else changed.take(pa.array(numbers))

    contract = feature_contract(table.dimension, catalog.registry.spec("small", "v2").user_fields)
    writer = VersionWriter(features, bounds=Bounds(difference=1))
    made = writer.write("new", contract, Rows(), [table])
    assert (made.table, made.rows, made.index) == (table.table, before.num_rows, table.index)
    assert features.measure(made.table, made.lance_version) == (made.rows, made.digest)
    assert features.dataset(made.table, made.lance_version).count_rows("label = 'other'") == 1
    assert features.dataset(table.table, table.lance_version).to_table().equals(before)
    assert features.measure(table.table, table.lance_version) == (table.rows, table.digest)
    assert {path: path.read_bytes() for path in files} == files
