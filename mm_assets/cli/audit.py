"""`mm audit`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.options import Json, Modalities, check_dataset_version
from mm_assets.cli.output import print_json, say

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog
    from mm_resources.monitoring.audit import Audit


def audit(
    dataset_version: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET@VERSION",
            callback=check_dataset_version,
            help="by default all published versions",
        ),
    ] = None,
    modalities: Modalities = None,
    sample: Annotated[int, typer.Option(min=1, help="rows of each table")] = 50,
    seed: Annotated[
        int | None, typer.Option(help="seed of the sample; by default each audit draws other rows")
    ] = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="compute the wrong rows again from their blobs, and publish them")
    ] = False,
    json: Json = False,
) -> None:
    """Recompute a random sample of published rows from their blobs, and compare."""
    from mm_assets.operations.audits import audit_tables
    from mm_resources.catalog import Catalog

    catalog = Catalog.open()
    audits = list(audit_tables(catalog, dataset_version, modalities, sample, seed))
    if mend and any(table.wrong for table in audits):
        for table in [] if json else audits:
            _print(table)
        _mend(catalog, audits, json)
        audits = list(audit_tables(catalog, dataset_version, modalities, sample, seed))
    if json:
        print_json([asdict(table) for table in audits])
    else:
        for table in audits:
            _print(table)
    if any(table.wrong for table in audits):
        raise typer.Exit(1)


def _mend(catalog: Catalog, audits: list[Audit], json: bool) -> None:
    from mm_assets.cli.cell_runs import require_models, run_cells
    from mm_assets.operations.audits import repair_rows
    from mm_resources.maintenance.table_repair import repair_pins

    repair = repair_rows(catalog, audits)
    require_models(catalog, repair.cells)
    results = run_cells(catalog, repair.cells, "", False, json) if repair.cells else []
    moved = repair_pins(catalog, repair)
    for line in [] if json else [*repair.notes, *moved]:
        say(line)
    for result in results:
        if result.status in ("blocked", "failed", "busy"):
            say(f"{result.modality} is {result.status}: {result.reason}", file=sys.stderr)


def _print(table: Audit) -> None:
    say(table)
    if not table.same_fingerprint:
        say(
            f"  installed {table.embedder} differs from the one that built this table (see: mm explain); "
            "further differences are expected"
        )
    for row in table.wrong:
        distance = "" if row.distance is None else f", distance {row.distance:.2g}"
        say(f"  wrong: feature {row.feature_id} ({row.cause}{distance}); mm explain {row.feature_id}")
