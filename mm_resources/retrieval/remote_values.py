"""Values that JSON lacks, as objects that name their type: of a service, for its client."""

from __future__ import annotations

import base64
from datetime import date, datetime
from typing import Any

BYTES, DATE, TIME = "$bytes", "$date", "$time"


def restore_values(value: Any) -> Any:
    """Return a value of typed JSON with its times, dates and bytes."""
    if isinstance(value, list):
        return [restore_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, item),) = value.items()
        if name == TIME:
            return datetime.fromisoformat(item)
        if name == DATE:
            return date.fromisoformat(item)
        if name == BYTES:
            return base64.b64decode(item)
    return {name: restore_values(item) for name, item in value.items()}
