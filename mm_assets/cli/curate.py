"""`mm curate`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def add_to(app: typer.Typer) -> None:
    app.command()(curate)


def curate(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    what_if: Annotated[
        list[str],
        typer.Option(
            "--what-if",
            metavar="RULE.PARAMETER=VALUE",
            help="a changed setting of the curation profile; repeatable",
        ),
    ],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    json: Json = False,
) -> None:
    """What a changed curation rule would keep and drop, and the time and money that this would cost or save. Nothing is changed."""
    from mm_assets.curation.what_if import parse_changes
    from mm_assets.curation.what_if import what_if as judge
    from mm_embed_kernels.modalities import get
    from mm_embed_kernels.rules import rules
    from mm_resources.ledger.prices import load_prices
    from mm_resources.registry.registry import Registry
    from mm_resources.resources import default_embedder
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    settings, changes = Settings.from_environment(), parse_changes(what_if)
    store, prices = Store(settings.store), load_prices(settings.prices)
    # A rule that does not judge a modality moves nothing in it.
    judged = {name for rule in changes for name in rules()[rule].modalities or [None]}
    cells = [
        cell for cell in Registry(store).cells(dataset_version, modality) if judged & {cell.modality, None}
    ]
    found = [judge(store, cell, changes, default_embedder(get(cell.modality)), prices) for cell in cells]
    if json:
        print_json(
            {
                "dataset_version": dataset_version,
                "what_if": changes,
                "currency": prices.currency,
                "cells": [{**vars(item), "moves": [vars(move) for move in item.moves]} for item in found],
            }
        )
        return
    if not found:
        print(f"{dataset_version} has no samples that {', '.join(changes)} would judge")
    for item in found:
        if item.moves:
            print_table(f"{item.modality}: what if {', '.join(what_if)}", [vars(move) for move in item.moves])
        price, way = f"{abs(item.price):,.4g} {prices.currency}", "less" if item.seconds < 0 else "more"
        time = (
            f"{abs(item.seconds):,.1f} s ({price}) {way} to segment and embed, if none of it is computed yet"
        )
        print(
            f"{item.modality}: {item.kept_then:,} of {item.samples:,} samples kept instead of {item.kept_now:,}; {time}"
        )
