"""Retrieval: test the candidate tables, then publish them with a pin."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mm_assets.cells.accounting_check import account_candidate, accounting_checks
from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, embedder_inputs
from mm_assets.cells.checks import Check
from mm_assets.cells.gates import GATE_CHECKS, gate_inputs
from mm_assets.cells.plots import scatter
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels.contracts import FEATURE_VIEWS, FEATURES
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.identity import library_versions
from mm_resources.features.reader_tags import move_reader_tags
from mm_resources.features.vector_indexes import MIN_RECALL, Recall
from mm_resources.ledger.accounting import Accounting
from mm_resources.registry.pins import Pin, PinnedTable, pin_tag
from mm_resources.tables.stage_refs import StageRef

PLOTTED = 2_000


@cell_asset(
    group="4_serve",
    deps=["feature_table"],
    kinds=["lancedb"],
    code_version="2",
    checks=[("accounting", True), ("recall", True), *GATE_CHECKS],
    requires_models=True,
    prepare=lambda run: _report(run),
    extra_inputs=lambda run: {**embedder_inputs(run), **gate_inputs(run)},
    shown_contract=FEATURES,
)
def feature_views(run: CellRun) -> StageOutput:
    """The publish: test the candidate (recall against exact search, accounting), then move the pin to it.

    Readers resolve the pin only; they see the old feature set or the new one.
    """
    # Read before the entries: a run that publishes in between takes this number, so that these entries cannot
    # replace its newer ones.
    number = run.catalog.registry.pins.next_number(run.cell)
    entries = run.read("feature_table").read_all().to_pylist()
    for entry in entries:
        run.catalog.features.require_intact(entry["table"], entry["lance_version"])
    number, pinned = _candidate_pin(run, number, entries)
    recalls = {
        entry["table"]: run.catalog.features.recall(entry["table"], entry["lance_version"], entry["index"])
        for entry in entries
    }
    counted = account_candidate(run, entries)
    rows = [
        {
            **entry,
            "recall": recalls[entry["table"]].plain,
            "recall_filtered": recalls[entry["table"]].filtered,
            "tag": pin_tag(run.cell.version, number, entry["lance_version"]),
            "pin": number,
            "published_at": datetime.now(UTC),
        }
        for entry in entries
    ]
    return StageOutput(
        run.write([FEATURE_VIEWS.rows(rows)]),
        {"pin": number, **counted.as_dict()},
        [*accounting_checks(run, counted), _recall_check(recalls)],
        before_commit=partial(_follow, run) if pinned else partial(_publish, run, number, rows, counted),
        row_count=sum(entry["rows"] for entry in entries),
        plots={"vectors": partial(_vector_plot, run, entries[0])},
    )


def _vector_plot(run: CellRun, entry: dict[str, Any]) -> bytes | None:
    """Draw a sample of the primary table's vectors on their principal components."""
    if not entry["rows"]:
        return None
    sampled = run.catalog.features.dataset(entry["table"], entry["lance_version"]).sample(
        min(PLOTTED, entry["rows"]), columns=["vector", "label"]
    )
    return scatter(vectors_of(sampled), sampled["label"].to_pylist())


def _candidate_pin(run: CellRun, number: int, entries: list[dict[str, Any]]) -> tuple[int, bool]:
    """Return the number of the candidate's pin, and whether that pin exists already.

    A run that was killed between the pin and the commit of its stage has published; it is not repeated. The
    same rows of later stages are another publish.
    """
    last = run.catalog.registry.pins.get(run.cell)
    candidate = {(entry["table"], entry["lance_version"], entry["digest"]) for entry in entries}
    stages = {name: ref.place for name, ref in _upstream(run).items()}
    if (
        last is not None
        and {(table.table, table.lance_version, table.digest) for table in last.tables} == candidate
        and {name: last.place(name) for name in last.stages} == stages
    ):
        return last.number, True
    return number, False


def _upstream(run: CellRun) -> dict[str, StageRef]:
    """Return the refs of the stages upstream, by name."""
    refs = {name: run.snapshot.state(name) for name in run.snapshot.upstream_metas(run.asset)}
    return {name: ref for name, ref in refs.items() if ref is not None}


def _recall_check(recalls: dict[str, Recall]) -> Check:
    plain = min((found.plain for found in recalls.values()), default=1.0)
    filtered = min((found.filtered for found in recalls.values()), default=1.0)
    return Check(
        "recall",
        min(plain, filtered) >= MIN_RECALL,
        f"recall@10 against exact search: {plain:.3f}, with a rare filter {filtered:.3f}; "
        f"required: {MIN_RECALL}",
        {"recall": plain, "recall_filtered": filtered, "threshold": MIN_RECALL},
    )


def _report(run: CellRun) -> None:
    """Report the cell's pin, if there is one, as a materialization of the dataset's own asset."""
    pin = run.catalog.registry.pins.get(run.cell)
    if pin is not None:
        run.context.report_pin(pin)


def _follow(run: CellRun) -> None:
    """Move the tags of the tables to the pin, and report it on the dataset's own asset."""
    move_reader_tags(run.catalog.registry, run.catalog.features, run.cell.dataset, run.cell.modality)
    _report(run)


def _publish(run: CellRun, number: int, rows: list[dict[str, Any]], counted: Accounting) -> None:
    known = {item.name for item in dataclasses.fields(PinnedTable)}
    tables = [
        PinnedTable(
            **{name: value for name, value in row.items() if name in known},
            settings={
                "device": made.device,
                "code_version": made.code_version,
                "libraries": library_versions(made.libraries),
            },
            weights_hash=made.weights_hash,
            preprocessing=made.preprocessing,
        )
        for row, made in zip(rows, run.embedders, strict=True)
    ]
    for table in tables:
        run.catalog.features.tag(table.table, table.lance_version, table.tag)
    stages: dict[str, dict[str, Any]] = {
        name: {
            "data_version": ref.meta.data_version,
            **ref.place,
            "run_id": ref.meta.run_id,
            "at": ref.meta.at,
        }
        for name, ref in _upstream(run).items()
    }
    run.catalog.registry.pins.publish(
        run.cell,
        Pin(
            number=number,
            dataset=run.cell.dataset,
            version=run.cell.version,
            modality=run.cell.modality,
            run_id=run.run_id,
            published_at=datetime.now(UTC).isoformat(),
            data_version=stages["feature_table"]["data_version"],
            tables=tables,
            accounting=counted.as_dict(),
            stages=stages,
            override=run.override,
        ),
    )
    _follow(run)
