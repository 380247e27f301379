"""Sources drafted from tables, of texts and of URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from mm_assets.spec_drafts.names import clean_name, join_uri
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import escape_glob
from mm_embed_kernels.spec.model import user_column
from mm_resources.objects.compressed_streams import uncompressed_name
from mm_resources.sources.base import is_missing
from mm_resources.sources.records import open_records

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
# Rows of a table that are inspected.
_MAX_ROWS = 500
# Share of broken rows above which a table is left out, since it is none that can be read; fewer are
# the gate's matter.
_MOST_BROKEN = 0.5
# Mean length from which a column of unknown name is taken for the text.
_MIN_TEXT_LENGTH = 15
_TEXT = (
    "text",
    "content",
    "sentence",
    "caption",
    "body",
    "document",
    "message",
    "review",
    "description",
    "utterance",
    "question",
)
_LABEL = ("label", "category", "class", "target", "tag", "topic", "sentiment", "species")
_ID = ("id", "uid", "uuid", "key", "guid")
Rows = list[dict[str, Any]]


def first_rows(path: Path) -> Rows:
    """Read the first rows of a table, without broken ones.

    Raises:
        UserError: when the table cannot be read, or more than half of its rows.
    """
    records = list(islice(open_records(str(path)), _MAX_ROWS))
    broken = [record.error for record in records if record.error]
    if len(broken) > _MOST_BROKEN * len(records):
        remedy = "save it as UTF-8" if broken[0].error_class == "encoding_unknown" else "repair it"
        raise UserError(
            f"{path} has {len(broken)} of {len(records)} rows that cannot be read: "
            f"{without_path(broken[0].message, path)}; {remedy}"
        )
    return [record.fields for record in records if not record.error]


def without_path(message: str, path: Path) -> str:
    """Return a message without the path of its table in front."""
    return message.replace(f"{path}: ", "").replace(f"{path} ", "")


def text_column(rows: Rows) -> str | None:
    """Return the column that most likely contains the text: by name, else by the length of its strings."""
    if not rows:
        return None
    strings = [
        name for name in rows[0] if sum(isinstance(row.get(name), str) for row in rows) * 2 > len(rows)
    ]
    named = [name for usual in _TEXT for name in strings if name.lower() == usual]
    if named:
        return named[0]
    lengths = {name: sum(len(str(row.get(name) or "")) for row in rows) / len(rows) for name in strings}
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    return longest if longest and lengths[longest] >= _MIN_TEXT_LENGTH else None


def record_source(
    table: str, root: str, rows: Rows, role: str, content: str, modality: str, link: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Draft a source whose samples are the rows of a table; return it and the columns that it leaves unused.

    Args:
        role: ``text`` or ``url``: the kind of values in the column `content`.
        link: column with the files that the rows belong to.
    """
    record = {role: content}
    for field, usual in (("id", _ID), ("label", _LABEL)):
        column = next(
            (name for name in rows[0] if name.lower() in usual and name not in (content, link)), None
        )
        values = [row.get(column) for row in rows] if column else []
        if any(isinstance(value, (dict, list)) for value in values):
            continue  # not a single value
        if column and (field == "label" or len(set(map(str, values))) == len(values)):
            record[field] = column
    if link is not None:
        record["link"] = link
    name = clean_name(Path(uncompressed_name(table)).with_suffix(""))
    source = {"name": name, "modality": modality, "uri": escape_glob(join_uri(root, table)), "record": record}
    return source, usable_columns(rows, set(record.values()))


def usable_columns(rows: Rows, used: set[str]) -> list[str]:
    """Return the columns that can become table columns: named, flat, different in more than case."""
    taken: dict[str, str] = {}
    for name in rows[0] if rows else ():
        if name.strip() and name not in used and not isinstance(rows[0][name], (dict, list)):
            taken.setdefault(user_column(name).casefold(), name)
    return list(taken.values())


def declare_columns(schema: dict[str, str], rows: Rows, columns: list[str]) -> None:
    """Add columns with their types to a schema.

    Where two tables differ in a column's type, the wider one is declared; in the form of its name, the first.
    """
    known = {user_column(name).casefold(): name for name in schema}
    for column in columns:
        kind = _narrowest_type(row.get(column) for row in rows)
        name = known.get(user_column(column).casefold(), column)
        if name == column:
            schema[column] = kind if schema.get(column, kind) == kind else _wider_type(schema[column], kind)


def _wider_type(a: str, b: str) -> str:
    return "float" if {a, b} == {"int", "float"} else "string"


def _narrowest_type(values: Iterable[Any]) -> str:
    """Return the narrowest schema type that all values fit."""
    present = [value for value in values if not is_missing(value)]
    if not present:
        return "string"
    for kind, fits in (("bool", _is_bool), ("int", _is_int), ("float", _is_float), ("timestamp", _is_time)):
        if all(fits(value) for value in present):
            return kind
    return "string"


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_int(value: Any) -> bool:
    # A string with a leading zero is a code, not a number.
    return isinstance(value, int) or (
        isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value.strip()) is not None
    )


def _is_float(value: Any) -> bool:
    return isinstance(value, (int, float)) or (
        isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value.strip()) is not None
    )


def _is_time(value: Any) -> bool:
    if isinstance(value, datetime):
        return True
    try:
        return isinstance(value, str) and len(value) >= 8 and datetime.fromisoformat(value) is not None
    except ValueError:
        return False
