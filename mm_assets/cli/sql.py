"""`mm sql`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json, check_dataset_versions
from mm_assets.cli.output import print_json_array, print_table, say
from mm_embed_kernels.errors import UserError

# Rows, and items of a list, that a terminal shows.
_SHOWN, _ITEMS = 100, 4


def sql(
    statement: Annotated[
        str | None,
        typer.Argument(
            help="one query, such as \"SELECT label, count(*) FROM features('birds@v2', 'image') GROUP BY 1\""
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="copy published feature tables into a new DuckDB file, for other tools",
        ),
    ] = None,
    dataset_version: Annotated[
        list[str] | None,
        typer.Option(
            callback=check_dataset_versions, help="with --save, only this dataset version; repeatable"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Query what is published by SQL (DuckDB): features('DATASET@VERSION', 'MODALITY') is a table.

    So are its stages by their names, such as curated_samples('DATASET@VERSION', 'MODALITY').
    """
    from mm_resources.catalog import Catalog
    from mm_resources.retrieval.sql_database import save_features
    from mm_resources.retrieval.sql_views import query_features

    if (statement is None) == (save is None):
        raise UserError("give one query, or --save FILE to copy the published tables into a DuckDB file")
    if save is not None:
        _report(save_features(Catalog.open(), dataset_version or [], save), save, json)
        return
    if dataset_version:
        raise UserError("--dataset-version is an option of --save; a query names its tables itself")
    assert statement is not None
    with query_features(Catalog.open(), statement) as reader:
        rows: Any = (row for batch in reader for row in batch.to_pylist())
        if json:
            print_json_array(rows)
            return
        shown = list(islice(rows, _SHOWN + 1))
    short = [{name: _begin_of(value) for name, value in row.items()} for row in shown[:_SHOWN]]
    print_table("", short, reader.schema.names)
    if len(shown) > _SHOWN:
        say(f"the first {_SHOWN} rows; --json prints all")


def _report(contents: list[dict[str, object]], file: Path, json: bool) -> None:
    """Say which tables a file has."""
    if json:
        print_json_array(iter(contents))
        return
    shown = ("table_name", "dataset_version", "modality", "embedder", "rows")
    print_table(f"tables of {file}", [{name: each[name] for name in shown} for each in contents])
    say(f"open it: duckdb {file}, or ATTACH '{file}' (READ_ONLY)")


def _begin_of(value: Any) -> Any:
    """Return the beginning of a long list, such as a vector, as a terminal shows it."""
    if not isinstance(value, list) or len(value) <= _ITEMS:
        return value
    return f"[{', '.join(map(str, value[:_ITEMS]))}, ... {len(value):,} values]"
