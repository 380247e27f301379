"""The layout version of a store, recorded in it, so that an incompatible version refuses it in one line."""

from __future__ import annotations

import json
import logging

from mm_embed_kernels.errors import UserError
from mm_resources.storage.records import DamagedRecord, read_record
from mm_resources.storage.store import Store

_log = logging.getLogger(__name__)

# Increased when earlier versions can no longer read the stores that this one writes.
LAYOUT = 3
# Layouts that this version reads, and carries on. In a store of layout 2 a stage's table states itself what
# is published of it, and there are no refs.
_READ = (2, LAYOUT)
NAME = "registry/layout.json"
# Roots of stores that no earlier layout has written to.
_NEW: set[str] = set()


def read_layout(store: Store) -> int:
    """Return the layout that is recorded in a store.

    Raises:
        FileNotFoundError: when there is none.
        DamagedRecord: names the record, and what stands in it.
    """
    remedy = f'write {{"layout": {LAYOUT}, "before": 2}} into it'
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
    if layout not in _READ:
        raise UserError(
            f"{store.root} has store layout {layout}, and this version reads {LAYOUT}; use the version "
            "that wrote it, or set MM_STORE to a new folder and register the specs again"
        )


def record_layout(store: Store) -> None:
    """Check a store's layout, and record it in a new store, or in one of an earlier layout.

    Raises:
        UserError: as `check_layout`.
    """
    check_layout(store)
    if store.create(NAME, json.dumps({"layout": LAYOUT}).encode()):
        return
    try:
        layout = read_layout(store)
    except DamagedRecord:
        return  # `check_layout` has told
    if layout < LAYOUT:
        store.write(NAME, json.dumps({"layout": LAYOUT, "before": layout}).encode())


def upgrade_layout(store: Store) -> None:
    """Record this version's layout in a store of an earlier one, before anything of it is written.

    Raises:
        UserError: as `check_layout`.
    """
    if has_earlier_tables(store) and store.entry(NAME) is not None:
        record_layout(store)


def has_earlier_tables(store: Store) -> bool:
    """Return whether a store may have stage tables without refs: an earlier layout wrote to it."""
    if store.root not in _NEW:
        try:
            record = json.loads(store.read(NAME))
            if record["layout"] == LAYOUT and "before" not in record:
                _NEW.add(store.root)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none yet, or `check_layout` tells that it is damaged
    return store.root not in _NEW
