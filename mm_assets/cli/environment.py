"""`mm env`, `mm doctor`, `mm upkeep`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from mm_assets.cli.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def add_to(app: typer.Typer) -> None:
    app.command()(env)
    app.command()(doctor)
    app.command()(upkeep)


def env(json: Json = False) -> None:
    """Print the export lines that make dagster and dg commands see the same home: eval "$(mm env)"."""
    from mm_assets.home import open_instance
    from mm_resources.settings import Settings

    settings = Settings.from_environment()
    open_instance(settings).dispose()
    if json:
        print_json(settings.exports())
        return
    for name, value in settings.exports().items():
        print(f"export {name}={shlex.quote(value)}")


def doctor(json: Json = False) -> None:
    """Check what a run needs: packages, weights, store, Dagster home, sandbox, disk."""
    from mm_assets.doctor import examine

    findings = examine()
    if json:
        print_json([vars(finding) for finding in findings])
    else:
        print_table("mm doctor", [{"check": f.name, "ok": f.ok, "finding": f.finding} for f in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def upkeep(
    older_than_days: Annotated[
        float, typer.Option(min=0, help="age from which superseded versions go; 0 only while nothing runs on the store")
    ] = 7.0,
    json: Json = False,
) -> None:
    """Join small files and remove what is superseded; whatever is published, or pinned by a training set, stays."""
    from datetime import timedelta

    from mm_resources.settings import Settings
    from mm_resources.store import Store
    from mm_resources.upkeep import upkeep as tidy

    done = tidy(Store(Settings.from_environment().store), timedelta(days=older_than_days))
    if json:
        print_json([vars(part) for part in done])
        return
    print_table("mm upkeep", [{**vars(part), "bytes": f"{part.bytes / 2**20:,.1f} MiB"} for part in done])
