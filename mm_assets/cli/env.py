"""`mm env`, `mm doctor`, `mm upkeep`, `mm gc`."""

from __future__ import annotations

import shlex

import typer

from mm_assets.cli.doctor import doctor
from mm_assets.cli.gc import gc
from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json
from mm_assets.cli.upkeep import upkeep


def add_to(app: typer.Typer) -> None:
    app.command()(env)
    app.command()(doctor)
    app.command()(upkeep)
    app.command()(gc)


def env(json: Json = False) -> None:
    """Print the export lines that make dagster and dg commands see the same home: eval "$(mm env)"."""
    from mm_assets.operations.dagster_home import open_instance
    from mm_resources.settings import Settings

    settings = Settings.from_environment()
    open_instance(settings).dispose()
    if json:
        print_json(settings.exports())
        return
    for name, value in settings.exports().items():
        print(f"export {name}={shlex.quote(value)}")
