"""Lookup of feature rows by a feature, segment or sample id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import UserError

if TYPE_CHECKING:
    import lance

_PREFIX = "id:"
_COLUMNS = ("feature_id", "segment_id", "sample_id")


def identifier_of(query: object) -> str:
    """Return the id of a query ``id:ID``; "" for any other query."""
    return query.removeprefix(_PREFIX) if isinstance(query, str) and query.startswith(_PREFIX) else ""


def find_row(
    tables: Iterable[lance.LanceDataset], identifier: str, columns: Sequence[str]
) -> dict[str, Any] | None:
    """Return columns of the first row with an id; None when no table has it.

    Raises:
        UserError: for a word that cannot be an id.
    """
    if not identifier.isalnum():
        raise UserError(f"{identifier!r} is not an id")
    where = " OR ".join(f"{column} = '{identifier}'" for column in _COLUMNS)
    for table in tables:
        rows = table.scanner(columns=list(columns), filter=where, limit=1).to_table().to_pylist()
        if rows:
            row: dict[str, Any] = rows[0]
            return row
    return None


def require_row(
    tables: Sequence[lance.LanceDataset], identifier: str, columns: Sequence[str]
) -> dict[str, Any]:
    """Return columns of the first row with an id.

    Raises:
        UserError: when none of the tables has it.
    """
    row = find_row(tables, identifier, columns)
    if row is None:
        names = ", ".join(PurePosixPath(table.uri).stem for table in tables)
        raise UserError(f"{names} has no feature, segment or sample {identifier}")
    return row
