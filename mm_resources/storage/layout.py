"""The layout version of a store, recorded in it, so that an incompatible version refuses it in one line."""

from __future__ import annotations

import json

from mm_embed_kernels.errors import UserError
from mm_resources.storage.store import Store

# Increased when stores of earlier versions can no longer be read.
LAYOUT = 2
_NAME = "registry/layout.json"


def check_layout(store: Store) -> None:
    """Check that this version can read a store.

    Raises:
        UserError: when an incompatible version wrote it.
    """
    try:
        layout = int(json.loads(store.read(_NAME))["layout"])
    except FileNotFoundError:
        if not store.names("registry/datasets"):
            return
        layout = 1
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
    store.create(_NAME, json.dumps({"layout": LAYOUT}).encode())
