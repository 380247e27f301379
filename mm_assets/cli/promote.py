"""`mm promote`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.options import Json, check_choice, check_dataset_version
from mm_assets.cli.output import print_json, say
from mm_embed_kernels.identity import ALIASES

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog
    from mm_resources.registry.aliases import Alias


def promote(
    dataset_version: Annotated[
        str, typer.Argument(metavar="DATASET@VERSION", help="version to promote; with --back: DATASET@ALIAS")
    ],
    to: Annotated[
        str, typer.Option(help="alias to move: production, staging, champion or candidate")
    ] = "production",
    evaluate: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="an additional test of your own")
    ] = "",
    override: Annotated[
        str, typer.Option(metavar="REASON", help="promote despite a closed gate; the reason is recorded")
    ] = "",
    back: Annotated[bool, typer.Option("--back", help="move the alias back to its previous version")] = False,
    json: Json = False,
) -> None:
    """Move an alias to a version that passes the promotion gate; readers use DATASET@production."""
    from mm_assets.operations.promotion import promote as move
    from mm_assets.operations.promotion import roll_back
    from mm_resources.catalog import Catalog

    catalog = Catalog.open()
    aliases = sorted(ALIASES - {"latest"})
    if back:
        dataset, _, alias = dataset_version.partition("@")
        check_choice("alias" if alias else "--to", alias or to, aliases)
        check_dataset_version(f"{dataset}@{alias or to}")
        moved = roll_back(catalog, dataset, alias or to)
    else:
        check_dataset_version(dataset_version)
        check_choice("--to", to, aliases)
        moved = move(catalog, dataset_version, to, evaluate, override)
    _report(catalog, moved)
    if json:
        print_json(asdict(moved))
        return
    reason = f" ({moved.reason})" if moved.reason else ""
    say(f"{moved.dataset}@{moved.alias} is {moved.dataset_version}{reason}")
    if not back:
        for check in moved.checks:
            say(f"  {'passed' if check['passed'] else 'overridden'}: {check['description']}")


def _report(catalog: Catalog, moved: Alias) -> None:
    """Report a move to Dagster, which mistakes do without."""
    from mm_assets.cells.dataset_reports import report_alias
    from mm_assets.operations.dagster_home import open_instance
    from mm_resources.settings import Settings

    report_alias(open_instance(Settings.from_environment()), catalog, moved)
