"""`mm doctor`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import SampleError, UserError

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.table_verification import TableCheck

# One-minute load of other processes above which a calibration is disturbed.
_QUIET_LOAD = 0.5


def doctor(
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="instead of the checks: read the stored blobs and tables and compare them with their hashes",
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="with --verify: number of blobs, chosen at random; 0: all")
    ] = 0,
    mend: Annotated[
        bool,
        typer.Option(
            "--mend", help="with --verify: compute what is damaged again, by backfills of the cells concerned"
        ),
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="instead of the checks: measure and store the best batch size and threads of each embedder "
            "on this machine",
        ),
    ] = False,
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            help="with --calibrate: only this embedder; repeatable; by default those of the profile"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check the requirements of a run: packages, weights, store, Dagster home, sandbox, disk."""
    if mend and not verify:
        raise UserError("--mend goes with --verify: mm doctor --verify --mend")
    if calibrate:
        _calibrate(embedder or [], json)
    elif verify:
        _verify(sample, mend, json)
    else:
        _check(json)


def _check(json: bool) -> None:
    from mm_assets.operations.doctor import run_checks

    findings = run_checks()
    if json:
        print_json([vars(finding) for finding in findings])
    else:
        print_table("mm doctor", [{"check": f.name, "ok": f.ok, "finding": f.finding} for f in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _calibrate(names: list[str], json: bool) -> None:
    from mm_assets.operations.doctor import primary_embedders
    from mm_resources.compute.calibration import calibrate, machine
    from mm_resources.settings import Settings

    settings = Settings.from_environment()
    path, load = settings.calibration_file, os.getloadavg()[0]
    measured = []
    for trials in calibrate(path, names or primary_embedders(settings), settings.precision):
        measured += trials
        if not json:
            print_table(trials[0].embedder, [asdict(setting) for setting in trials])
    if json:
        rows = [asdict(setting) for setting in measured]
        print_json({"machine": machine(), "file": str(path), "load": load, "settings": rows})
        return
    if load > _QUIET_LOAD:
        say(f"other processes (load {load:.1f}) disturbed the measurement; repeat it on an idle machine")
    say(f"{machine()}: the chosen settings are in {path}; fingerprints and vectors do not change")


def _verify(sample: int, mend: bool, json: bool) -> None:
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.table_verification import verify_tables
    from mm_resources.maintenance.verification import verify
    from mm_resources.registry.damaged_files import describe_damage

    catalog = Catalog.open()
    problems = describe_damage(catalog.registry)
    tables = list(verify_tables(catalog.store))
    damaged = [table for table in tables if table.is_damaged]
    mended = _mend(catalog, damaged, json) if mend and damaged else None
    blobs = size = 0
    bad: list[dict[str, Any]] = []
    try:
        for checked in verify(catalog.blobs, sample):
            blobs, size = blobs + checked.blobs, size + checked.bytes
            bad += [
                {"content_hash": location.content_hash, "path": location.path, "cause": error.error_class}
                for location, error in checked.bad
            ]
    except SampleError as error:
        raise UserError(f"the store does not answer; not all blobs were read: {error.message}") from error
    left = damaged if mended is None else mended
    if json:
        counts = {
            "verified": sum(table.files for table in tables),
            "unverified": sum(table.unverified for table in tables),
            "bad": [row for table in damaged for row in table.rows()],
            "mended": mended is not None and not mended,
        }
        found = {"blobs": blobs, "bytes": size, "bad": bad}
        print_json({**found, "tables": counts, "registry": problems})
    else:
        good = f"{blobs:,} blobs ({size / 2**20:,.1f} MiB) match their hashes"
        say(f"{good}; {len(bad):,} are missing or damaged")
        if bad:
            print_table("missing or damaged", bad)
            say(
                "the next backfill of each version that references them fetches them again: "
                "mm backfill DATASET@VERSION"
            )
        _print_tables(tables, left, mend)
        for problem in problems:
            say(problem)
    if bad or left or problems:
        raise typer.Exit(1)


def _print_tables(tables: list[TableCheck], left: list[TableCheck], mend: bool) -> None:
    files, size = sum(table.files for table in tables), sum(table.bytes for table in tables)
    say(f"{files:,} files of {len(tables):,} tables ({size / 2**20:,.1f} MiB) match their hashes")
    if unverified := sum(table.unverified for table in tables):
        say(f"{unverified:,} files have no hash: an older version wrote them, or their writer was killed")
    if left:
        print_table("damaged tables", [row for table in left for row in table.rows()])
        if not mend:
            say("compute them again: mm doctor --verify --mend")


def _mend(catalog: Catalog, damaged: list[TableCheck], json: bool) -> list[TableCheck]:
    """Compute damaged tables again; return those that are still damaged."""
    from mm_assets.cli.cell_runs import require_models, run_cells
    from mm_resources.maintenance.table_repair import repair_pins, repair_tables
    from mm_resources.maintenance.table_verification import verify_table
    from mm_resources.maintenance.unnamed_tables import leave_damage

    repair = repair_tables(catalog, damaged)
    require_models(catalog, repair.cells)
    results = run_cells(catalog, repair.cells, "", False, json) if repair.cells else []
    repair.notes += repair_pins(catalog, repair)
    leave_damage(catalog, {table.table for table in damaged if table.table.startswith("features/")})
    for line in [] if json else [*repair.notes, *repair.left]:
        say(line)
    for result in results:
        if result.status in ("blocked", "failed"):
            say(f"{result.modality} is {result.status}: {result.reason}", file=sys.stderr)
    again = [verify_table(catalog.store, table.table) for table in damaged]
    return [table for table in again if table.is_damaged]
