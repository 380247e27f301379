"""`mm report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.output import print_json


def add_to(app: typer.Typer) -> None:
    app.command()(report)


def report(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    out: Annotated[Path, typer.Option(help="the HTML file to write; one that is there is replaced")],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    json: Annotated[bool, typer.Option("--json", help="machine-readable output")] = False,
) -> None:
    """One self-contained page to look at: what was kept and dropped by which rule, signals, duplicates, cost."""
    from mm_assets.reports.cell_report import cell_report
    from mm_assets.reports.html_page import page
    from mm_embed_kernels.errors import UserError
    from mm_resources.ledger.prices import load_prices
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    settings = Settings.from_environment()
    store, prices = Store(settings.store), load_prices(settings.prices)
    cells = Registry(store).cells(dataset_version, modality)
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it")
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", errors="replace") as sink:
            reports = (cell_report(store, cell, prices) for cell in cells)
            sink.writelines(page(dataset_version, reports, [cell.modality for cell in cells], prices))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    if json:
        print_json(
            {"dataset_version": dataset_version, "path": str(out.absolute()), "bytes": out.stat().st_size}
        )
    else:
        print(f"{out.absolute()} ({out.stat().st_size / 1e6:.1f} MB)")
