"""Base model of the spec, its column types and its durations."""

from __future__ import annotations

import re
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

USER_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}

# Columns of a side table with a meaning of their own, beside the user's columns.
SAMPLE_FIELDS = ("label", "link", "group", "transcript")


def user_column(name: str) -> str:
    """Return the table column of a user's column; characters that SQL would have to quote become ``_``."""
    return "user__" + re.sub(r"\W", "_", name)


class SpecModel(BaseModel):
    """A part of the spec: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


Duration = Annotated[str, Field(pattern=r"^[1-9]\d{0,5}(s|min|h|d)$")]
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def seconds(duration: str) -> int:
    """Convert a `Duration` to seconds: ``10min`` -> 600."""
    number = duration.rstrip("sminhd")
    return int(number) * _SECONDS[duration[len(number) :]]
