"""`mm sql`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json_array, print_table, say

# Rows, and items of a list, that a terminal shows.
_SHOWN, _ITEMS = 100, 4


def sql(
    statement: Annotated[
        str,
        typer.Argument(
            help="one query, such as \"SELECT label, count(*) FROM features('birds@v2', 'image') GROUP BY 1\""
        ),
    ],
    json: Json = False,
) -> None:
    """Query published features by SQL (DuckDB): features('DATASET@VERSION', 'MODALITY') is a table."""
    from mm_resources.catalog import Catalog
    from mm_resources.retrieval.sql_views import query_features

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


def _begin_of(value: Any) -> Any:
    """Return the beginning of a long list, such as a vector, as a terminal shows it."""
    if not isinstance(value, list) or len(value) <= _ITEMS:
        return value
    return f"[{', '.join(map(str, value[:_ITEMS]))}, ... {len(value):,} values]"
