"""Stages on the difference from a base give what full runs give: rows, data versions, counts and failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_assets.assets import feature_table
from mm_assets.cells import entry
from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels import contracts
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.features.versions import MAKER
from mm_resources.tables.failure_events import FailureFilter
from tests.assets.conftest import Maker, Platform, platforms

SPEC = """
name: notes
version: {version}
{parent}schema: {{stars: int}}
embedders: {{text: [wordllama]}}
gates: {{max_failed_share: 0.9}}
{rules}sources:
  - {{name: notes, modality: text, uri: notes.jsonl, record: {{id: id, text: text, label: topic}}}}
  - {{name: files, modality: text, uri: 'files/*.txt'}}
"""
PLACES = ["harbour", "mountain", "station", "garden", "library", "bakery", "bridge", "theatre"]
# Rules and bounds that a version may have, and what of the stages they make new.
RULES = [
    "",
    "curation: {rules: {too_short: {action: flag, min_words: 9}}}\n",
    "validation: {text: {label: {none_of: [rain]}}}\n",
]
# What may happen to a note: (kind, its number).
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "remove", "alter", "copy", "break", "label", "rate", "rename", "file", "repair"]
        ),
        st.integers(0, 39),
    ),
    max_size=4,
)
STEPS = st.lists(
    st.tuples(CHANGES, st.sampled_from([*range(len(RULES)), 0, 0]), st.booleans()), min_size=1, max_size=3
)
COMPUTED = ("raw_assets", "sample_metadata", "validated_samples", "segments", "embeddings")


class Notes:
    """The notes of a dataset, as its versions change them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "files").mkdir(parents=True)
        self.rows = {i: self._note(i, f"On day {i} we saw {i * 7} birds") for i in range(40)}
        for i in range(4):
            self._write(i, f"File {i} tells of a walk of {i} hours from one side of the town to the other.")

    def _note(self, i: int, text: str) -> dict[str, Any]:
        return {"id": i, "text": f"{text} at the {PLACES[i % 8]}.", "topic": "walk", "stars": i % 5}

    def _write(self, i: int, text: str) -> None:
        (self.folder / "files" / f"{i}.txt").write_text(text)

    def change(self, kind: str, i: int, step: int) -> None:
        """Change one note."""
        if kind == "add":
            self.rows[100 * step + i] = self._note(
                100 * step + i, f"A new note of step {step} about {i} owls"
            )
        if kind == "file":
            self._write(i % 6, f"In step {step} file {i % 6} was written again, with {i} other words in it.")
        if i not in self.rows:
            return
        note = self.rows[i]
        if kind == "remove":
            del self.rows[i]
        elif kind == "alter":
            note["text"] = f"Nobody walked anywhere in step {step}, on day {i}, since it rained all day."
        elif kind == "copy":
            note["text"] = self.rows[next(iter(self.rows))]["text"]
        elif kind == "break":
            note["text"] = "   "
        elif kind == "label":
            note["topic"] = "rain" if note["topic"] == "walk" else "walk"
        elif kind == "rate":
            note["stars"] += 1
        elif kind == "rename":
            del self.rows[i]
            self.rows[1_000 * (step + 1) + i] = {**note, "id": 1_000 * (step + 1) + i}

    def save(self) -> None:
        """Write the file that both platforms read, whose time is part of the listing."""
        (self.folder / "notes.jsonl").write_text("\n".join(map(json.dumps, self.rows.values())) + "\n")


def publish(platform: Platform, folder: Path, version: str, parent: str, rules: str) -> None:
    spec = folder / f"{version}.yaml"
    spec.write_text(SPEC.format(version=version, rules=rules, parent=f"parent: {parent}\n" if parent else ""))
    assert platform.backfill(platform.register(spec))["text"].status == "published"


def facts(platform: Platform, version: str) -> dict[str, Any]:
    """Rows, data versions, counts, checks and failures of a version."""
    cell = platform.cell(f"notes@{version}", "text")
    tables, found = platform.catalog.tables, {}
    for stage in STAGES:
        meta = tables.meta(stage, cell)
        assert meta is not None
        summary = {name: value for name, value in meta.summary.items() if stage not in STAGES[9:]}
        checks = [{**check, "figures": dict(check["figures"])} for check in meta.checks]
        found[stage, "meta"] = (
            meta.data_version,
            meta.rows,
            meta.row_count,
            meta.failed,
            meta.samples,
            summary,
        )
        if stage != "lineage_report":
            found[stage, "checks"] = checks
        if stage not in STAGES[9:]:
            left_out = {*getattr(contracts, stage.upper()).makers, "path", "offset", "seconds", "modified_at"}
            rows = tables.read(stage, cell).read_all()
            kept = rows.drop([name for name in left_out if name in rows.schema.names])
            found[stage, "rows"] = sorted(kept.to_pylist(), key=repr)
    columns = ["sample_id", "stage", "error_class", "message", "retryable", "attempt"]
    failures = platform.catalog.failures.read(cell, columns).read_all().to_pylist()
    found["all", "failures"] = sorted(failures, key=repr)
    pin = platform.registry.pins.get(cell)
    assert pin is not None
    table = platform.catalog.features.dataset(pin.primary.table, pin.primary.lance_version)
    rows = table.to_table().drop(list(MAKER)).to_pylist()
    found["pin", "rows"] = sorted(rows, key=lambda row: str(row["feature_id"]))
    found["pin", "facts"] = pin.data_version, pin.primary.digest, pin.primary.index, pin.accounting
    return found


def holds_whatever_the_path(root: Path, make: Maker, steps: list[Any]) -> list[dict[str, Any]]:
    """Publish versions on two platforms, by difference and whole; return the increments of each version."""
    notes = Notes(root / "data")
    shared, whole = make(root / "shared"), make(root / "whole")
    increments: list[dict[str, Any]] = []
    plan = entry.plan_increment

    def recorded_plan(run: CellRun, *rest: Any) -> Any:
        found = plan(run, *rest)
        if found is not None:
            increments[-1][run.asset] = found.owners.to_pylist()
        return found

    for number, (changes, rules, child) in enumerate([([], 0, False), *steps]):
        for kind, i in changes:
            notes.change(kind, i, number)
        notes.save()
        version, parent = f"v{number}", f"v{number - 1}" if child and number else ""
        increments.append({})
        if "repair" in dict(changes):
            shared.catalog.cache.note_wrong_results()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(entry, "plan_increment", recorded_plan)
            publish(shared, notes.folder, version, parent, RULES[rules])
        with full_runs():
            publish(whole, notes.folder, version, parent, RULES[rules])
        require_equal(facts(shared, version), facts(whole, version), version)
        assert not ("repair" in dict(changes) and increments[-1])
    increments.append({})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(entry, "plan_increment", recorded_plan)
        shared.backfill(f"notes@{version}", redrive=FailureFilter())
    with full_runs():
        whole.backfill(f"notes@{version}", redrive=FailureFilter())
    require_equal(facts(shared, version), facts(whole, version), "redriven")
    return increments


@contextmanager
def full_runs() -> Iterator[None]:
    """Compute and write all rows of the stages that run in this block."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(entry, "plan_increment", lambda *_: None)
        patched.setattr(CellRun, "other_versions", lambda _: [])
        patched.setattr(feature_table, "bases_of", lambda *_: [])
        yield


def require_equal(one: dict[Any, Any], other: dict[Any, Any], step: str) -> None:
    for name, value in other.items():
        assert one[name] == value, (step, name)


def test_versions_by_difference_equal_full_runs(new_platform: Maker, tmp_path: Path) -> None:
    steps = [
        ([("add", 1), ("alter", 2), ("break", 3), ("label", 4), ("file", 1)], 0, True),
        ([("remove", 2), ("rename", 5), ("copy", 9), ("rate", 6)], 0, False),
        ([("alter", 3), ("file", 5)], 2, True),
    ]
    first, second, third, fourth, redriven = holds_whatever_the_path(tmp_path, new_platform, steps)
    assert not first
    assert set(second) == {*COMPUTED, "content_blobs", "normalized_features", "feature_table"}
    assert {len(second[stage]) for stage in ("sample_metadata", "validated_samples")} <= {4, 5}
    assert set(third) == set(second)
    # Other bounds: what they decide about is computed whole, the stages behind it by difference again.
    assert "sample_metadata" in fourth
    assert not {"raw_assets", "validated_samples"} & set(fourth)
    assert "segments" in fourth
    assert redriven
    assert {len(samples) for samples in redriven.values()} == {1}, "the sample that had failed"


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_any_sequence_equals_full_runs(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    with platforms() as make:
        holds_whatever_the_path(tmp_path_factory.mktemp("increments"), make, steps)
