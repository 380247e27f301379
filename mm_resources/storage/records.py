"""JSON records of the store, which may be cut or damaged: the error names the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from mm_embed_kernels.errors import UserError
from mm_resources.storage.store import Store

Record = TypeVar("Record")


class DamagedRecord(UserError):
    """A record of the store that is not what was written."""


def read_record(
    store: Store,
    name: str,
    parse: Callable[[Any], Record],
    what: str,
    remedy: str = "restore it from a backup",
) -> Record:
    """Read and parse a JSON record.

    Args:
        what: what the record is, for people.
        remedy: what to do where it is damaged.

    Raises:
        FileNotFoundError: when it does not exist.
        DamagedRecord: when it is empty, cut, no JSON or of another form.
    """
    return parse_record(store.read(name), name, parse, what, remedy)


def parse_record(
    raw: bytes, name: str, parse: Callable[[Any], Record], what: str, remedy: str = "restore it from a backup"
) -> Record:
    """Parse a JSON record that was read; see `read_record`.

    Raises:
        DamagedRecord: as `read_record`.
    """
    try:
        return parse(json.loads(raw))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedRecord(
            f"{what}: {name} in the store is damaged ({type(error).__name__}); {remedy}"
        ) from None
