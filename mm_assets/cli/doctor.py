"""`mm doctor`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import SampleError, UserError

# One-minute load of other processes above which a calibration is disturbed.
_QUIET_LOAD = 0.5


def doctor(
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="instead of the checks: read the stored blobs and compare them with their hashes"
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="with --verify: number of blobs, chosen at random; 0: all")
    ] = 0,
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
    if calibrate:
        _calibrate(embedder or [], json)
    elif verify:
        _verify(sample, json)
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


def _verify(sample: int, json: bool) -> None:
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.verification import verify

    blobs = size = 0
    bad: list[dict[str, Any]] = []
    try:
        for checked in verify(Catalog.open().blobs, sample):
            blobs, size = blobs + checked.blobs, size + checked.bytes
            bad += [
                {"content_hash": location.content_hash, "path": location.path, "cause": error.error_class}
                for location, error in checked.bad
            ]
    except SampleError as error:
        raise UserError(f"the store does not answer; not all blobs were read: {error.message}") from error
    if json:
        print_json({"blobs": blobs, "bytes": size, "bad": bad})
    else:
        good = f"{blobs:,} blobs ({size / 2**20:,.1f} MiB) match their hashes"
        say(f"{good}; {len(bad):,} are missing or damaged")
        if bad:
            print_table("missing or damaged", bad)
            say(
                "the next backfill of each version that references them fetches them again: "
                "mm backfill DATASET@VERSION"
            )
    if bad:
        raise typer.Exit(1)
