"""TODO."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table

# Of other processes, before anything is measured.
_QUIET_LOAD = 0.5


def doctor(
    verify: Annotated[
        bool, typer.Option("--verify", help="read the stored blobs and hold each against its hash instead")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="with --verify: so many blobs, chosen at random; 0: all")
    ] = 0,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="measure which batch size and threads suit each embedder here, for later runs, instead",
        ),
    ] = False,
    embedder: Annotated[
        list[str] | None, typer.Option(help="with --calibrate: only these; by default the profile's")
    ] = None,
    json: Json = False,
) -> None:
    """Check what a run needs: packages, weights, store, Dagster home, sandbox, disk."""
    from mm_assets.operations.doctor import examine

    if calibrate:
        _calibrate(embedder or [], json)
        return
    if verify:
        _verify(sample, json)
        return
    findings = examine()
    if json:
        print_json([vars(finding) for finding in findings])
    else:
        print_table("mm doctor", [{"check": f.name, "ok": f.ok, "finding": f.finding} for f in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _calibrate(names: list[str], json: bool) -> None:
    from dataclasses import asdict

    from mm_assets.operations.doctor import primary_embedders
    from mm_resources.compute.calibration import calibrate, machine
    from mm_resources.settings import Settings

    settings = Settings.from_environment()
    path, load = settings.calibration_file, os.getloadavg()[0]
    tried = []
    for found in calibrate(path, names or primary_embedders(settings), settings.precision):
        tried += found
        if not json:
            print_table(found[0].embedder, [asdict(setting) for setting in found])
    if json:
        print_json(
            {
                "machine": machine(),
                "file": str(path),
                "load": load,
                "settings": [asdict(setting) for setting in tried],
            }
        )
    else:
        if load > _QUIET_LOAD:
            print(
                f"other work on this machine (load {load:.1f}) has disturbed the measurement; better repeat it when there is none"
            )
        print(f"{machine()}: what is kept lies in {path}; fingerprints and vectors stay as they are")


def _verify(sample: int, json: bool) -> None:
    from mm_embed_kernels.errors import SampleError, UserError
    from mm_resources.blobs.blob_store import BlobStore
    from mm_resources.maintenance.verification import verify
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    blobs = size = 0
    bad: list[dict[str, Any]] = []
    try:
        for checked in verify(BlobStore(Store(Settings.from_environment().store)), sample):
            blobs, size = blobs + checked.blobs, size + checked.bytes
            bad += [
                {"content_hash": place.content_hash, "path": place.path, "cause": error.error_class}
                for place, error in checked.bad
            ]
    except SampleError as error:
        raise UserError(
            f"the store does not answer, so that not all of it was read: {error.message}"
        ) from None
    if json:
        print_json({"blobs": blobs, "bytes": size, "bad": bad})
    else:
        print(
            f"{blobs:,} blobs ({size / 2**20:,.1f} MiB) have their hashes; {len(bad):,} are missing or damaged"
        )
        if bad:
            print_table("missing or damaged", bad)
            print(
                "they are fetched again by the next backfill of each dataset version that references them: mm backfill NAME@VERSION"
            )
    if bad:
        raise typer.Exit(1)
