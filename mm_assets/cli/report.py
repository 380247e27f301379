"""`mm report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.options import DatasetVersion, Json, Modalities
from mm_assets.cli.output import print_json, say
from mm_embed_kernels.errors import UserError


def _check_target(out: Path) -> Path:
    """Check that a file can be written at the path, and return it."""
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it")
    return out


def report(
    dataset_version: DatasetVersion,
    out: Annotated[
        Path,
        typer.Option(callback=_check_target, help="path of the HTML file; an existing one is replaced"),
    ],
    modalities: Modalities = None,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page: samples by decision, signals, duplicates, cost."""
    from mm_assets.reports.cell_report import cell_report
    from mm_assets.reports.html_page import page
    from mm_resources.catalog import Catalog
    from mm_resources.costs.prices import load_prices
    from mm_resources.settings import Settings

    catalog, prices = Catalog.open(), load_prices(Settings.from_environment().prices)
    cells = catalog.registry.cells(dataset_version, modalities)
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", errors="replace") as sink:
            reports = (cell_report(catalog, cell, prices) for cell in cells)
            sink.writelines(page(dataset_version, reports, [cell.modality for cell in cells], prices))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    path, size = out.absolute(), out.stat().st_size
    if json:
        print_json({"dataset_version": dataset_version, "path": str(path), "bytes": size})
    else:
        say(f"{path} ({size / 1e6:.1f} MB)")
