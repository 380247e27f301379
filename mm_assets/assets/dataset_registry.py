"""Dataset registry: the frozen spec and listing of a dataset version."""

from __future__ import annotations

from typing import Any

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.source_drift_check import sources_unchanged
from mm_assets.cells.source_match_check import sources_matched
from mm_assets.cells.stage_output import StageOutput
from mm_resources.ingestion.listings import declares_links


def _inputs(run: CellRun) -> dict[str, Any]:
    return {"spec": run.spec.digest}


def _drift_checks(run: CellRun) -> list[Check]:
    """Compare the sources with the frozen listing; name the command for a new version where they differ."""
    return [
        sources_unchanged(
            run.catalog.registry,
            run.spec,
            [
                run.catalog.registry.drifts.check(run.spec, source)
                for source in run.spec.sources_of(run.cell.modality)
            ],
        )
    ]


@cell_asset(
    group="1_ingest",
    kinds=["yaml", "lance"],
    checks=[("sources_listed", True), ("sources_matched", False), ("sources_unchanged", False)],
    requires_models=True,
    # A missing model fails the first stage, not one after hours of ingestion.
    prepare=CellRun.require_models,
    extra_inputs=_inputs,
    live_checks=_drift_checks,
)
def dataset_registry(run: CellRun) -> StageOutput:
    """The frozen spec and the frozen listing of the dataset version, for this modality.

    The first cell of a version lists each source once; every cell reads that listing. A declared source that
    lists nothing or cannot be listed closes the gate, unless it sets `allow_empty: true`.
    """
    problems = _freeze_sources(run)
    run.fail(
        {"error_class": "source_unlisted", "message": problem, "retryable": True} for problem in problems
    )
    rows = run.query_tables(
        "SELECT * FROM listing ORDER BY sample_id",
        listing=run.catalog.registry.listings.listing(run.spec, run.cell.modality),
    )
    count, listed = (
        len(run.spec.sources_of(run.cell.modality)),
        "; ".join(problems) or "every source is listed",
    )
    return StageOutput(
        run.write(rows),
        {"sources": count, "spec": run.spec.digest[:12], "splits": run.spec.splits},
        [
            Check("sources_listed", not problems, listed, {"sources": count}),
            sources_matched(run.catalog.registry, run.spec, run.cell.modality),
        ],
    )


def _freeze_sources(run: CellRun) -> list[str]:
    """Freeze the listings of the version's sources; return why those of this cell cannot be listed.

    All sources are frozen together, so that the cells of a version see one state. A problem of another cell's
    source closes that cell's gate, and this one's only where this cell links to its samples.
    """
    freeze = run.catalog.registry.listings.freeze
    problems = {source.name: freeze(run.spec, source) for source in run.spec.sources}
    own = run.spec.sources_of(run.cell.modality)
    if not any(map(declares_links, own)):
        problems = {source.name: problems[source.name] for source in own}
    return [problem for problem in problems.values() if problem]
