"""`mm curate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.options import DatasetVersion, Json, Modalities
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError
from mm_resources.costs.figures import format_amount

if TYPE_CHECKING:
    from mm_assets.curation.what_if import WhatIf
    from mm_resources.catalog import Catalog
    from mm_resources.cell import Cell
    from mm_resources.costs.prices import Prices

Changes = dict[str, dict[str, Any]]


def curate(
    dataset_version: DatasetVersion,
    what_if: Annotated[
        list[str],
        typer.Option(
            "--what-if",
            metavar="RULE.PARAMETER=VALUE",
            help="a changed setting of the curation profile; repeatable",
        ),
    ],
    modalities: Modalities = None,
    json: Json = False,
) -> None:
    """Predict the decisions and the cost of changed curation rules; change nothing."""
    from mm_resources.catalog import Catalog
    from mm_resources.costs.prices import load_prices
    from mm_resources.settings import Settings

    changes = parse_changes(what_if)
    catalog, prices = Catalog.open(), load_prices(Settings.from_environment().prices)
    cells = _judged_cells(catalog.registry.cells(dataset_version, modalities), changes)
    outcomes = _outcomes(catalog, cells, changes, prices)
    if json:
        described = [{**vars(item), "moves": [vars(move) for move in item.moves]} for item in outcomes]
        print_json(
            {
                "dataset_version": dataset_version,
                "what_if": changes,
                "currency": prices.currency,
                "cells": described,
            }
        )
        return
    if not outcomes:
        say(f"no modality of {dataset_version} has the rule {', '.join(changes)}")
    for item in outcomes:
        _print(item, what_if, prices.currency)


def parse_changes(words: list[str]) -> Changes:
    """Parse ``rule.parameter=value`` words into rule -> parameter -> value, the value as YAML.

    Raises:
        UserError: for a word of another form, or a rule that does not exist.
    """
    import yaml

    from mm_embed_kernels.rules import rules

    changes: Changes = {}
    for word in words:
        name, equals, value = word.partition("=")
        rule, dot, parameter = name.partition(".")
        if not (equals and dot and parameter):
            raise UserError(
                f"--what-if {word!r} is not RULE.PARAMETER=VALUE, for example too_short.min_words=5"
            )
        if rule not in rules():
            raise UserError(f"--what-if {word!r}: no rule is named {rule!r}; there are: {', '.join(rules())}")
        changes.setdefault(rule, {})[parameter] = yaml.safe_load(value)
    return changes


def _judged_cells(cells: list[Cell], changes: Changes) -> list[Cell]:
    """Select the cells that a changed rule judges; in the others no decision changes."""
    from mm_embed_kernels.rules import rules

    judged = {name for rule in changes for name in rules()[rule].modalities or [None]}
    return [cell for cell in cells if judged & {cell.modality, None}]


def _outcomes(catalog: Catalog, cells: list[Cell], changes: Changes, prices: Prices) -> list[WhatIf]:
    from mm_assets.curation.what_if import what_if
    from mm_embed_kernels.modalities import get
    from mm_resources.resources import default_embedder

    return [what_if(catalog, cell, changes, default_embedder(get(cell.modality)), prices) for cell in cells]


def _print(item: WhatIf, words: list[str], currency: str) -> None:
    if item.moves:
        print_table(f"{item.modality}: what if {', '.join(words)}", [vars(move) for move in item.moves])
    price, direction = f"{format_amount(abs(item.price))} {currency}", "less" if item.seconds < 0 else "more"
    say(
        f"{item.modality}: {item.kept_then:,} of {item.samples:,} samples kept instead of {item.kept_now:,}; "
        f"{abs(item.seconds):,.1f} s ({price}) {direction} to segment and embed, if none of it is cached"
    )
