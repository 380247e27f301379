"""`mm env`."""

from __future__ import annotations

import shlex

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_exactly, print_json


def env(json: Json = False) -> None:
    """Print export lines with which dagster and dg commands use the same home: eval "$(mm env)"."""
    from mm_assets.operations.dagster_home import open_instance
    from mm_resources.settings import Settings

    settings = Settings.from_environment()
    open_instance(settings).dispose()
    if json:
        print_json(settings.exports())
        return
    for name, value in settings.exports().items():
        print_exactly(f"export {name}={shlex.quote(value)}")
