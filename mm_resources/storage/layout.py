"""The layout version of a store, recorded in it, so that an incompatible version refuses it in one line."""

from __future__ import annotations

import json
import logging

from mm_embed_kernels.errors import UserError
from mm_resources.storage.records import DamagedRecord, read_record
from mm_resources.storage.store import Store

_log = logging.getLogger(__name__)

# Increased when stores of earlier versions can no longer be read.
LAYOUT = 2
NAME = "registry/layout.json"


def read_layout(store: Store) -> int:
    """Return the layout that is recorded in a store.

    Raises:
        FileNotFoundError: when there is none.
        DamagedRecord: names the record, and what stands in it.
    """
    remedy = f'write {{"layout": {LAYOUT}}} into it'
    return read_record(store, NAME, lambda raw: int(raw["layout"]), "layout of the store", remedy)


def check_layout(store: Store) -> None:
    """Check that this version can read a store.

    Raises:
        UserError: when an incompatible version wrote it.
    """
    try:
        layout = read_layout(store)
    except FileNotFoundError:
        if not store.names("registry/datasets"):
            return
        layout = 1
    except DamagedRecord as error:
        # Versions that cannot be read name themselves: this record spoils none of those that can.
        _log.warning(str(error))
        return
    if layout != LAYOUT:
        raise UserError(
            f"{store.root} has store layout {layout}, and this version reads {LAYOUT}; use the version "
            "that wrote it, or set MM_STORE to a new folder and register the specs again"
        )


def record_layout(store: Store) -> None:
    """Check a store's layout, and record it in a new store.

    Raises:
        UserError: as `check_layout`.
    """
    check_layout(store)
    store.create(NAME, json.dumps({"layout": LAYOUT}).encode())
