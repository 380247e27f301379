"""`mm env`, `mm doctor`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from mm_assets.cli.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def add_to(app: typer.Typer) -> None:
    app.command()(env)
    app.command()(doctor)


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
