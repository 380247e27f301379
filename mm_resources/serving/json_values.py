"""Rows as JSON: times in ISO 8601, bytes in base64; or with their types, for a client that restores them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from typing import Any

from starlette.responses import Response

from mm_embed_kernels.escapes import escape_json
from mm_resources.retrieval.remote_values import BYTES, DATE, TIME


def as_json(value: Any, with_types: bool = False) -> Any:
    """Return a value that JSON has.

    Args:
        with_types: whether times and bytes are objects that name their type, see
            `mm_resources.retrieval.remote_values`.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value), with_types)
    if isinstance(value, Mapping):
        return {str(name): as_json(item, with_types) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, with_types) for item in value]
    if isinstance(value, datetime | date):
        kind = TIME if isinstance(value, datetime) else DATE
        return {kind: value.isoformat()} if with_types else value.isoformat()
    if isinstance(value, bytes):
        text = base64.b64encode(value).decode()
        return {BYTES: text} if with_types else text
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def json_response(value: Any, status: int = 200, with_types: bool = False) -> Response:
    """Return a value as the JSON of an answer."""
    text = json.dumps(as_json(value, with_types), ensure_ascii=False, allow_nan=False)
    return Response(
        escape_json(text).encode("utf-8", "backslashreplace"), status, media_type="application/json"
    )
